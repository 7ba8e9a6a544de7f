"""An upload is one trace from pict-rs to the device, where the standard variables ask for it."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.otlp_collector import Collector, collecting
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import free_port, gateway, inference, wait_until
from tests.media import drawn, still

BAD = still(drawn(("red", "triangle")))
SECRET = "0123456789abcdef-traces"
ROOT = "POST /api/v1/scan/{client_id}"
ALL = (ROOT, "score", "ledger write", "ScoreImage", "decode", "encode", "queue", "batch")


@dataclass(frozen=True)
class Traced:
    gateway: str
    collector: Collector

    async def post(
        self, trace: str, data: bytes = BAD, *, parent: str = "b7ad6b7169203331", flags: str = "01"
    ) -> Answer:
        header = ("traceparent", f"00-{trace}-{parent}-{flags}")
        return await post(self.gateway, data, path=f"/api/v1/scan/{SECRET}", headers=(header,))


@contextlib.contextmanager
def traced_pair(endpoint: str, protocol: str) -> Iterator[tuple[str, str]]:
    """The address of a gateway, and the file with its log."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        environment.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        environment.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        flags = ("--client-secrets", f"lemmy:{SECRET}", "--repeats", "false")
        with inference() as scoring, gateway(scoring.address, *flags) as http:
            yield http.address, str(http.log)


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"])
def traced(request: pytest.FixtureRequest) -> Iterator[Traced]:
    with (
        collecting(request.param) as collector,
        traced_pair(collector.endpoint, request.param) as (address, _),
    ):
        yield Traced(address, collector)


async def test_an_upload_is_one_trace_below_that_of_pict_rs(traced: Traced) -> None:
    trace = secrets.token_hex(16)
    answer = await traced.post(trace)
    spans = await asyncio.to_thread(traced.collector.wait_for, trace, *ALL)
    parents = {name: span.parent for name, span in spans.items()}
    assert parents == {
        ROOT: "b7ad6b7169203331",
        "score": spans[ROOT].id,
        "ledger write": spans[ROOT].id,
        "ScoreImage": spans["score"].id,
        "decode": spans["ScoreImage"].id,
        "decode queue": spans["decode"].id,
        "encode": spans["ScoreImage"].id,
        "queue": spans["encode"].id,
        "batch": spans["encode"].id,
    }
    assert {spans[name].service for name in (ROOT, "score", "ledger write")} == {
        "imagesafety-gateway"
    }
    assert {spans[name].service for name in ("ScoreImage", "decode", "batch")} == {
        "imagesafety-inference"
    }
    assert not any(span.failed for span in spans.values())
    told = spans[ROOT].attributes
    assert told["imagesafety.decision_id"] == answer.body["id"]
    assert (told["imagesafety.cause"], told["imagesafety.client"]) == ("policy", "lemmy")
    assert (told["imagesafety.media_type"], told["imagesafety.bytes"]) == ("image/png", len(BAD))
    assert told["http.response.status_code"] == answer.status == 406
    assert spans["ScoreImage"].attributes["imagesafety.backend"].startswith("pytorch")  # type: ignore[union-attr]
    assert spans["batch"].attributes["imagesafety.batch_views"] == 1


async def test_a_batch_and_the_images_that_it_serves_are_linked(traced: Traced) -> None:
    traces = [secrets.token_hex(16) for _ in range(16)]
    await asyncio.gather(*(traced.post(trace) for trace in traces))
    for trace in traces:
        await asyncio.to_thread(traced.collector.wait_for, trace, ROOT, "ScoreImage", "encode")
    spans = [span for trace in traces for span in traced.collector.of(trace)]
    encodes = {span.id: span for span in spans if span.name == "encode"}
    batches = {span.id: span for span in spans if span.name == "batch"}
    assert {link for batch in batches.values() for link in batch.links} == set(encodes)
    assert {link for encode in encodes.values() for link in encode.links} == set(batches)
    for batch in batches.values():
        assert batch.parent in batch.links
        assert all(batch.id in encodes[link].links for link in batch.links)
        assert batch.attributes["imagesafety.batch_views"] == len(batch.links)


async def test_spans_of_what_fails_say_so(traced: Traced) -> None:
    trace = secrets.token_hex(16)
    answer = await traced.post(trace, b"this is no picture")
    assert answer.body["cause"] == "undecodable"
    spans = await asyncio.to_thread(traced.collector.wait_for, trace, ROOT, "score", "ScoreImage")
    assert {name for name, span in spans.items() if span.failed} == {
        "score",
        "ScoreImage",
        "decode",
    }
    assert spans["score"].attributes["error.type"] == "INVALID_ARGUMENT"
    assert spans["ScoreImage"].attributes["error.type"] == "UNSUPPORTED_TYPE"


async def test_a_caller_that_samples_nothing_is_not_traced_and_one_without_a_trace_is(
    traced: Traced,
) -> None:
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    await traced.post(unsampled, flags="00")
    without = await post(traced.gateway, BAD)
    await traced.post(sampled)
    await asyncio.to_thread(traced.collector.wait_for, sampled, *ALL)
    assert traced.collector.of(unsampled) == []
    assert without.body["id"].encode() in traced.collector.content


async def test_no_span_has_the_secret_in_it(traced: Traced) -> None:
    trace = secrets.token_hex(16)
    await traced.post(trace)
    await asyncio.to_thread(traced.collector.wait_for, trace, *ALL)
    assert b"lemmy" in traced.collector.content
    assert SECRET.encode() not in traced.collector.content


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_that_is_down_or_hangs_costs_one_warning(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        port = hangs.getsockname()[1] if protocol == "grpc" else free_port()
        with traced_pair(f"http://127.0.0.1:{port}", protocol) as (address, log):

            def warnings() -> int:
                with open(log) as lines:
                    return lines.read().count("traces can't be exported")

            for _ in range(3):
                assert (await post(address, BAD)).status == 406
                await asyncio.to_thread(wait_until, lambda: warnings() > 0, "a warning", 30)
            assert warnings() == 1
