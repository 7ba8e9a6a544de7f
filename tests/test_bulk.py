"""Bulk work against replicas in all moods: every image has exactly one result."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest

from imagesafety.bulk import (
    BulkImage,
    BulkOptions,
    BulkResult,
    BulkScorer,
    ScoringError,
    ServiceUnavailableError,
)
from imagesafety.client import ConceptSet
from imagesafety.policy import Band, Concept, Prompt
from imagesafety.v1 import scoring_pb2
from tests.e2e.processes import free_port
from tests.scripted_bulk import (
    Behaviour,
    Context,
    Replica,
    Response,
    breaks_stream,
    error,
    first,
    never,
    replica,
    score,
    scores,
)

CONCEPTS = ConceptSet([Concept("red", (Prompt("something red"),))])
OPTIONS = BulkOptions(CONCEPTS)
Results = list[BulkResult[int]]


async def numbers(count: int) -> AsyncIterator[BulkImage[int]]:
    for number in range(count):
        yield BulkImage(number, str(number).encode())


async def source(images: Iterable[BulkImage[int]]) -> AsyncIterator[BulkImage[int]]:
    for image in images:
        yield image


async def all_of(target: str, images: AsyncIterator[BulkImage[int]], **terms: float) -> Results:
    async with asyncio.timeout(60), scorer(target, **terms) as bulk:
        return [result async for result in bulk.score(images)]


def scorer(target: str, **terms: float) -> BulkScorer:
    return BulkScorer(target, OPTIONS, streams=4, **terms)  # type: ignore[arg-type]


def similarity(result: BulkResult[int]) -> float:
    assert result.error is None
    assert result.scores is not None
    return result.scores.views[0].similarities[0]


def assert_scored(results: Results, count: int) -> None:
    """Each of the numbers once, with its own scores."""
    assert sorted(result.key for result in results) == list(range(count))
    assert all(similarity(result) == result.key for result in results)


async def one_error(behaviour: Behaviour, **terms: float) -> ScoringError:
    async with replica(behaviour) as (target, _, _):
        [result] = await all_of(target, numbers(1), **terms)
    assert result.scores is None
    assert result.error is not None
    return result.error


async def test_every_image_has_its_own_result() -> None:
    async with replica(score) as (target, service, _):
        assert_scored(await all_of(target, numbers(1000)), 1000)
        await service.until(lambda: not service.open_streams)
    assert set(service.came.values()) == {1}
    assert service.streams == 4


async def test_nothing_is_asked_where_there_are_no_images() -> None:
    async with replica(score) as (target, service, _):
        assert await all_of(target, numbers(0)) == []
    assert service.streams == 0


async def test_options_and_media_types_reach_the_service_and_embeddings_come_back() -> None:
    band = Band("red", 0.25, 0.5)
    options = BulkOptions(CONCEPTS, "me", 3, 2, (band,), embeddings=True)
    async with replica(score) as (target, service, _), BulkScorer(target, options) as bulk:
        [result] = [found async for found in bulk.score(numbers(1))]
    assert service.header is not None
    sent = service.header.options
    assert [concept.name for concept in sent.concepts] == ["red"]
    assert sent.priority == scoring_pb2.PRIORITY_BULK
    assert (sent.client, sent.max_frames, sent.return_embeddings) == ("me", 3, True)
    assert (sent.detail.tiles, sent.detail.when[0].at_most) == (2, 0.5)
    assert result.scores is not None
    assert result.scores.views[0].embedding == (0.5, 0.25)


async def test_keys_and_bytes_may_be_the_same() -> None:
    async with replica(score) as (target, _, _):
        results = await all_of(target, source([BulkImage(7, b"1")] * 100))
    assert [(result.key, similarity(result)) for result in results] == [(7, 1.0)] * 100


async def test_large_images_go_in_pieces_and_too_large_ones_nowhere() -> None:
    sizes = [10, 2 * 1024 * 1024, 5_000_000, 8 * 1024 * 1024, 8 * 1024 * 1024 + 1]
    async with replica(score) as (target, service, _):
        images = source(BulkImage(size, bytes(size)) for size in sizes)
        results = await all_of(target, images, max_bytes=6_000_000)
    found = {result.key: result for result in results}
    assert [similarity(found[size]) for size in sizes[:-1]] == sizes[:-1]
    refused = found[sizes[-1]].error
    assert refused is not None
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_BYTES",
    )
    assert len(service.came) == len(sizes) - 1


async def test_an_error_about_the_file_is_its_result_at_once() -> None:
    undecodable = error(grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE")
    found = await one_error(first(1, undecodable))
    assert (found.reason, found.may_pass) == ("UNDECODABLE", False)


async def test_a_media_type_that_ends_streams_is_not_sent() -> None:
    async with replica(score) as (target, service, _):
        [result] = await all_of(target, source([BulkImage(0, b"0", "x" * 257)]))
    assert result.error is not None
    assert result.error.reason == "INVALID_HEADER"
    assert not service.came


@pytest.mark.parametrize(
    ("code", "reason", "times"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", 9),
        (grpc.StatusCode.UNAVAILABLE, "DRAINING", 9),
        (grpc.StatusCode.INTERNAL, "ENCODER_FAILED", 2),
        (grpc.StatusCode.INTERNAL, "DECODER_KILLED", 2),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 2),
    ],
)
async def test_what_passes_is_tried_again(code: grpc.StatusCode, reason: str, times: int) -> None:
    async with replica(first(times, error(code, reason))) as (target, service, _):
        assert_scored(await all_of(target, numbers(2)), 2)
    assert set(service.came.values()) == {times + 1}


async def test_what_does_not_pass_is_the_result_after_a_few_tries() -> None:
    found = await one_error(first(99, error(grpc.StatusCode.INTERNAL, "ENCODER_FAILED")))
    assert (found.reason, found.may_pass) == ("ENCODER_FAILED", True)


async def test_scores_of_a_part_are_taken_if_there_are_no_better_ones() -> None:
    partial = scores(9, "DEADLINE_EXCEEDED")
    async with replica(first(1, partial)) as (target, _, _):
        assert_scored(await all_of(target, numbers(1)), 1)
    async with replica(first(99, partial)) as (target, _, _):
        [result] = await all_of(target, numbers(1))
    assert result.scores is not None
    assert result.scores.partial_reason == "DEADLINE_EXCEEDED"


async def test_a_stream_that_breaks_costs_no_image() -> None:
    broken = set[int]()

    def now_and_then(service: Replica, data: bytes) -> bool:
        place = int(data) // 100
        if int(data) % 100 != 50 or place in broken:
            return False
        broken.add(place)
        return True

    behaviour = breaks_stream(now_and_then, grpc.StatusCode.UNAVAILABLE)
    async with replica(behaviour) as (target, _, _):
        assert_scored(await all_of(target, numbers(1000)), 1000)
    assert len(broken) == 10


async def test_an_image_that_breaks_its_streams_harms_no_other() -> None:
    poison = {b"20", b"21", b"150"}
    behaviour = breaks_stream(lambda _, data: data in poison, grpc.StatusCode.INTERNAL)
    async with replica(behaviour) as (target, service, _):
        results = await all_of(target, numbers(300))
    failed = {str(result.key).encode() for result in results if result.error is not None}
    assert failed == poison
    assert sorted(result.key for result in results) == list(range(300))
    assert max(service.came.values()) <= 10


async def test_a_replica_that_dies_costs_no_image() -> None:
    begun = asyncio.Event()

    async def dies(service: Replica, data: bytes, context: Context) -> Response:
        begun.set()
        return await never(service, data, context)

    async with replica(dies) as (bad, _, server), replica(score) as (good, _, _):
        scoring = asyncio.create_task(all_of(f"ipv4:{bad},{good}", numbers(500)))
        await asyncio.wait_for(begun.wait(), 30)
        await server.stop(0)
        assert_scored(await scoring, 500)


async def test_a_replica_that_hangs_costs_no_image() -> None:
    async with replica(never) as (bad, hung, _), replica(score) as (good, _, _):
        found = await all_of(f"ipv4:{bad},{good}", numbers(500), silence_seconds=0.5)
        assert_scored(found, 500)
    assert hung.streams


async def test_a_single_slow_image_is_no_outage() -> None:
    asked = asyncio.Event()

    class Slow(Replica):
        async def DescribeModel(  # noqa: N802
            self, request: scoring_pb2.DescribeModelRequest, context: object
        ) -> scoring_pb2.DescribeModelResponse:
            if self.came:
                self.asked = getattr(self, "asked", 0) + 1
                if self.asked > 8:  # longer than the patience
                    asked.set()
            return await super().DescribeModel(request, context)

    async def late(service: Replica, data: bytes, context: Context) -> Response:
        await asked.wait()
        return await score(service, data, context)

    async with replica(late, Slow) as (target, _, _):
        assert_scored(await all_of(target, numbers(1), patience_seconds=0.5), 1)


async def test_no_replica_at_all_ends_the_work() -> None:
    with pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1"):
        await all_of(f"127.0.0.1:{free_port()}", numbers(1), patience_seconds=0.5)


async def test_replicas_that_go_for_good_end_the_work() -> None:
    async with replica(never) as (target, service, server):
        scoring = asyncio.create_task(all_of(target, numbers(10), patience_seconds=0.5))
        await service.until(lambda: len(service.came) == 10)
        await server.stop(0)
        with pytest.raises(ServiceUnavailableError):
            await scoring


async def test_options_that_the_service_does_not_take_end_the_work() -> None:
    behaviour = breaks_stream(lambda *_: True, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_HEADER")
    async with replica(behaviour) as (target, _, _):
        with pytest.raises(ScoringError) as caught:
            await all_of(target, numbers(10))
    assert caught.value.reason == "INVALID_HEADER"


async def test_the_source_is_read_no_faster_than_there_is_room() -> None:
    read = Counter[int]()

    async def images() -> AsyncIterator[BulkImage[int]]:
        for number in range(1000):
            read[number] += 1
            yield BulkImage(number, b"0123456789")

    async with replica(never) as (target, service, _), scorer(target, max_bytes=100) as bulk:
        results = bulk.score(images())
        waiting = asyncio.ensure_future(anext(results))
        await service.until(lambda: service.came.total() == 10)
        assert len(read) <= 11
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await results.aclose()


@pytest.mark.parametrize("closes", [True, False])
async def test_a_consumer_that_stops_early_leaves_nothing_behind(closes: bool) -> None:
    tasks = asyncio.all_tasks()
    async with replica(score) as (target, service, _):
        theirs = asyncio.all_tasks() - tasks
        async with scorer(target) as bulk:
            results = bulk.score(numbers(10_000))
            async for _ in results:
                break
            if closes:
                await results.aclose()
        await service.until(lambda: not service.open_streams)
        ours = asyncio.all_tasks() - tasks - theirs
        assert not [task for task in ours if "imagesafety/" in repr(task)]


async def test_what_the_source_raises_is_raised_when_the_images_before_are_done() -> None:
    async def images() -> AsyncIterator[BulkImage[int]]:
        async for image in numbers(100):
            yield image
        raise OSError("the disk is gone")

    found: Results = []

    async def collect(bulk: BulkScorer) -> None:
        async for result in bulk.score(images()):
            found.append(result)

    async with replica(score) as (target, _, _), scorer(target) as bulk:
        with pytest.raises(OSError, match="the disk is gone"):
            await collect(bulk)
    assert_scored(found, 100)


async def test_a_source_that_has_nothing_for_long_keeps_no_stream() -> None:
    more = asyncio.Event()

    async def images() -> AsyncIterator[BulkImage[int]]:
        yield BulkImage(0, b"0")
        await more.wait()
        yield BulkImage(1, b"1")

    async with replica(score) as (target, service, _), scorer(target) as bulk:
        results = bulk.score(images())
        found = [await anext(results)]
        await service.until(lambda: not service.open_streams)
        more.set()
        found += [result async for result in results]
    assert_scored(found, 2)


async def test_a_full_service_is_asked_again_and_again_and_never_given_up() -> None:
    def is_full(service: Replica, data: bytes) -> bool:
        return service.streams <= 6

    full = breaks_stream(is_full, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    async with replica(full) as (target, _, _):
        found = await all_of(target, numbers(100), patience_seconds=0.2)
        assert_scored(found, 100)


async def test_two_sources_may_be_scored_at_once() -> None:
    async with replica(score) as (target, _, _), scorer(target) as bulk:

        async def run() -> Results:
            return [result async for result in bulk.score(numbers(200))]

        for results in await asyncio.gather(run(), run()):
            assert_scored(results, 200)


async def test_a_source_in_the_middle_is_closed_when_a_run_fails() -> None:
    closed: list[int] = []

    async def endless() -> AsyncIterator[BulkImage[int]]:
        number = 0
        try:
            while True:
                yield BulkImage(number, b"1")
                number += 1
        finally:
            closed.append(number)

    async with replica(never) as (target, service, server):
        scoring = asyncio.create_task(all_of(target, endless(), patience_seconds=0.5))
        await service.until(lambda: service.came.total() > 10)
        await server.stop(0)
        with pytest.raises(ServiceUnavailableError):
            await scoring
    assert len(closed) == 1
