"""An upload is one trace from pict-rs to the device, where the standard variables ask for it."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from imagesafety.v1 import scoring_pb2
from tests.e2e.otlp_collector import Collector, collecting
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import free_port, gateway, inference, off_loop, wait_until
from tests.e2e.scripted_inference import Context, read_all, refuse, scores, scripted
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
def traced_pair(endpoint: str, protocol: str) -> Iterator[tuple[str, Path]]:
    """The address of a gateway, and the file with its log."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        environment.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        environment.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        flags = ("--client-secrets", f"lemmy:{SECRET}", "--repeats", "false")
        with inference() as scoring, gateway(scoring.address, *flags) as http:
            yield http.address, http.log


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


async def test_each_attempt_is_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    parents: list[str] = []

    async def first_full(
        messages: AsyncIterator[scoring_pb2.ScoreImageRequest], context: Context
    ) -> scoring_pb2.ScoreImageResponse:
        nonlocal calls
        calls += 1
        await read_all(messages)
        headers = {key: str(value) for key, value in context.invocation_metadata() or ()}
        parents.append(headers["traceparent"].split("-")[2])
        if calls == 1:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "")
        return scores(0, 0, 0, 0)

    with collecting("http/protobuf") as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        trace = secrets.token_hex(16)
        header = ("traceparent", f"00-{trace}-b7ad6b7169203331-01")
        async with (
            scripted(first_full) as (replica, _),
            off_loop(gateway(replica, ready=False)) as http,
        ):
            assert (await post(http.address, BAD, headers=(header,))).body["cause"] == "policy"
        # All is exported when the gateway has ended.
        first, second = [span for span in collector.of(trace) if span.name == "score"]
        assert [first.id, second.id] == parents
        assert (first.failed, second.failed) == (True, False)
        assert first.attributes["error.type"] == "UNAVAILABLE"
        [root] = [span for span in collector.of(trace) if span.name == ROOT]
        assert first.parent == second.parent == root.id
        assert not root.failed


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
                return log.read_text().count("traces can't be exported")

            for _ in range(3):
                assert (await post(address, BAD)).status == 406
                await asyncio.to_thread(wait_until, lambda: warnings() > 0, "a warning", 30)
            assert warnings() == 1


async def test_headers_of_a_stranger_do_not_fill_the_calls_metadata(traced: Traced) -> None:
    """gRPC refuses a call whose metadata is too large, and the file would come in unscanned."""
    headers = (
        ("traceparent", f"00-{secrets.token_hex(16)}-b7ad6b7169203331-01"),
        ("tracestate", ",".join(f"k{number}={'v' * 240}" for number in range(30))),
        ("baggage", ",".join(f"k{number}={'v' * 240}" for number in range(30))),
    )
    for _ in range(10):
        answer = await post(traced.gateway, BAD, path=f"/api/v1/scan/{SECRET}", headers=headers)
        assert (answer.status, answer.body["cause"]) == (406, "policy")
