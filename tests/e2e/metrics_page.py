"""What a /metrics page says."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.processes import fetch


async def metric(address: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels, at an address."""
    _, page = await asyncio.to_thread(fetch, f"http://{address}/metrics")
    return value_of(page, name, **labels)


def value_of(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels, on a page."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
