"""A replica is killed under a light load: every upload has its end, and its row."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.rehearsal.stage import Plan, stage


@pytest.mark.timeout(300)
async def test_no_upload_is_lost_when_a_replica_is_killed() -> None:
    async with stage(Plan(replicas=2, share=0.2, measure_seconds=1.0)) as it:
        async with it.load(hang_ups=0.1):
            await asyncio.sleep(1)
            victim, survivor = it.fleet.replicas
            await asyncio.to_thread(victim.kill)
            it.publish(survivor)
            await asyncio.sleep(2)
        verdict = it.judged()
    assert verdict.violations == []
    assert verdict.lost == 0, verdict.failed
    assert verdict.scored > 0
