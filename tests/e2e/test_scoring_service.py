"""The gRPC service as other programs use it."""

import datetime
import signal
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from benchmarks.rehearsal.certificates import Authority
from imagesafety.client import ConceptSet, ScoringClient, ScoringError, TlsFiles
from imagesafety.policy import Concept, Prompt
from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc
from tests.e2e.certificates import write_authority, write_issued
from tests.e2e.conftest import Pair
from tests.e2e.processes import inference, off_loop, wait_until
from tests.e2e.test_pair import BAD, GOOD
from tests.media import ALL

NAMES = ("red", "triangle", "blue", "circle")
PROMPTS = {"red": "something red", "triangle": "a triangle"} | {
    "blue": "something blue",
    "circle": "a circle",
}
CONCEPTS = [
    scoring_pb2.Concept(
        name=name, prompts=scoring_pb2.PromptSet(prompts=[scoring_pb2.Prompt(text=PROMPTS[name])])
    )
    for name in NAMES
]
OPTIONS = scoring_pb2.ScoringOptions(concepts=CONCEPTS, return_embeddings=True)
Request = scoring_pb2.ScoreImageRequest
Bulk = scoring_pb2.ScoreImagesRequest


def image(data: bytes, options: scoring_pb2.ScoringOptions = OPTIONS) -> Iterator[Request]:
    yield Request(header=scoring_pb2.ScoreImageHeader(options=options))
    for start in range(0, len(data), 1000):
        yield Request(chunk=data[start : start + 1000])


@pytest.fixture(scope="module")
def channel(pair: Pair) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(pair.inference) as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> scoring_pb2_grpc.ScoringServiceStub:
    return scoring_pb2_grpc.ScoringServiceStub(channel)


Stub = scoring_pb2_grpc.ScoringServiceStub


def failure(stub: Stub, requests: Iterable[Request]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ScoreImage(iter(requests), timeout=30)
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "imagesafety"
    assert status.message == caught.value.details()
    return caught.value.code(), info.reason


def test_a_drawn_picture_resembles_what_it_shows(stub: Stub) -> None:
    scores = stub.ScoreImage(image(BAD), timeout=30).scores
    by_name = dict(zip(NAMES, scores.views[0].similarities, strict=True))
    assert min(by_name["red"], by_name["triangle"]) > 0.107
    assert max(by_name["blue"], by_name["circle"]) < 0.107
    assert (scores.media_type, scores.width, scores.height) == ("image/png", 300, 300)
    assert scores.views[0].region.width == 300
    embedding = np.array(scores.views[0].embedding)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert scores.model == stub.DescribeModel(scoring_pb2.DescribeModelRequest()).model


def test_a_returned_embedding_makes_a_probe_that_finds_the_picture_again(stub: Stub) -> None:
    embedding = stub.ScoreImage(image(BAD), timeout=30).scores.views[0].embedding
    probe = scoring_pb2.Probe(vector=[2 * value for value in embedding], bias=-0.25)
    options = scoring_pb2.ScoringOptions(concepts=[scoring_pb2.Concept(name="p", probe=probe)])
    similar = [
        stub.ScoreImage(image(data, options), timeout=30).scores.views[0].similarities[0]
        for data in (BAD, GOOD)
    ]
    assert similar[0] == pytest.approx(0.75, abs=1e-5)
    assert similar[1] < similar[0]


def test_describe_model_tells_the_limits(stub: Stub) -> None:
    description = stub.DescribeModel(scoring_pb2.DescribeModelRequest())
    assert description.model.name == "demo"
    assert description.model.weights_digest.startswith("sha256:")
    assert description.embedding_width == 128
    assert (description.input_width, description.input_height) == (64, 64)
    assert description.limits.max_image_bytes == 40 * 1024 * 1024
    assert tuple(description.limits.media_types) == ALL
    assert description.limits.default_max_frames == 16
    assert description.limits.max_media_duration.seconds == 3600


def concept(**fields: object) -> list[scoring_pb2.Concept]:
    return [scoring_pb2.Concept(name="a", **fields)]  # type: ignore[arg-type]


def prompts(*texts: str, weight: float = 1) -> scoring_pb2.PromptSet:
    return scoring_pb2.PromptSet(
        prompts=[scoring_pb2.Prompt(text=text, weight=weight) for text in texts]
    )


@pytest.mark.parametrize(
    "concepts",
    [
        [],
        concept(),
        concept(prompts=prompts()),
        concept(prompts=prompts(" ")),
        concept(prompts=prompts("x" * 501)),
        concept(prompts=prompts("x", weight=0)),
        concept(prompts=prompts("x", weight=float("nan"))),
        concept(prompts=prompts(*["x"] * 1025)),
        concept(probe=scoring_pb2.Probe(vector=[1.0] * 127)),
        concept(probe=scoring_pb2.Probe(vector=[0.0] * 128)),
        concept(probe=scoring_pb2.Probe(vector=[float("inf")] * 128)),
        concept(probe=scoring_pb2.Probe(vector=[1.0] * 128, bias=2)),
        concept(prompts=prompts("x")) * 2,
        [scoring_pb2.Concept(name="", prompts=prompts("x"))],
        [scoring_pb2.Concept(name=str(n), prompts=prompts("x")) for n in range(257)],
    ],
)
def test_a_header_that_cannot_be_meant(stub: Stub, concepts: list[scoring_pb2.Concept]) -> None:
    options = scoring_pb2.ScoringOptions(concepts=concepts)
    code, reason = failure(stub, image(GOOD, options))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_HEADER")


def test_streams_that_are_not_as_agreed(stub: Stub) -> None:
    bad = grpc.StatusCode.INVALID_ARGUMENT
    assert failure(stub, []) == (bad, "HEADER_MISSING")
    assert failure(stub, [Request(chunk=GOOD)]) == (bad, "HEADER_MISSING")
    header = next(image(GOOD))
    assert failure(stub, [header, header]) == (bad, "HEADER_REPEATED")
    assert failure(stub, [header]) == (bad, "EMPTY_IMAGE")
    assert failure(stub, image(b"text")) == (bad, "UNSUPPORTED_TYPE")
    assert failure(stub, image(GOOD[:60])) == (bad, "TRUNCATED")
    large = (Request(chunk=bytes(1024 * 1024)) for _ in range(41))
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure(stub, [header, *large]) == (exhausted, "TOO_MANY_BYTES")


def bulk_messages() -> Iterator[Bulk]:
    yield Bulk(header=scoring_pb2.ScoreImagesHeader(options=OPTIONS))
    yield Bulk(image=scoring_pb2.WholeImage(request_id="bad", data=BAD))
    chunk = scoring_pb2.ImageChunk
    half = len(GOOD) // 2
    yield Bulk(chunk=chunk(request_id="good", media_type="image/png", data=GOOD[:half]))
    yield Bulk(image=scoring_pb2.WholeImage(request_id="text", data=b"text"))
    yield Bulk(image=scoring_pb2.WholeImage(request_id="", data=GOOD))
    yield Bulk(chunk=chunk(request_id="good", data=GOOD[half:], last=True))
    yield Bulk(chunk=chunk(request_id="unfinished", data=GOOD[:half]))
    for _ in range(41):
        yield Bulk(chunk=chunk(request_id="large", data=bytes(1024 * 1024)))
    yield Bulk(chunk=chunk(request_id="large", last=True))
    for number in range(100):
        yield Bulk(image=scoring_pb2.WholeImage(request_id=f"n{number}", data=GOOD))


def test_many_images_on_one_stream(stub: Stub) -> None:
    answers = list(stub.ScoreImages(bulk_messages(), timeout=60))
    by_id = {answer.request_id: answer for answer in answers}
    assert len(answers) == len(by_id) == 106
    wrong = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for name in ("text", "", "unfinished"):
        assert by_id[name].error.code == wrong, name
    assert by_id["large"].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    for name, data in (("bad", BAD), ("good", GOOD), ("n99", GOOD)):
        single = stub.ScoreImage(image(data), timeout=30).scores.views[0].similarities
        np.testing.assert_allclose(by_id[name].scores.views[0].similarities, single, atol=1e-5)


def test_perceptual_hashes_and_times_are_the_same_in_one_call_and_in_a_stream(stub: Stub) -> None:
    options = scoring_pb2.ScoringOptions(concepts=CONCEPTS, return_perceptual_hashes=True)
    single = stub.ScoreImage(image(BAD, options), timeout=30).scores
    bulk = [
        Bulk(header=scoring_pb2.ScoreImagesHeader(options=options)),
        Bulk(image=scoring_pb2.WholeImage(request_id="bad", data=BAD)),
    ]
    [answer] = stub.ScoreImages(iter(bulk), timeout=30)
    [found] = single.perceptual_hashes
    assert [found] == list(answer.scores.perceptual_hashes)
    assert (found.frame_index, found.background, len(found.pdq)) == (0, 0, 32)
    for scores in (single, answer.scores):
        for stage in (scores.stages.decode, scores.stages.encode):
            assert datetime.timedelta(0) < stage.ToTimedelta() < datetime.timedelta(seconds=30)
    assert not stub.ScoreImage(image(BAD), timeout=30).scores.perceptual_hashes


@pytest.mark.parametrize(
    "message",
    [
        Bulk(),
        Bulk(header=scoring_pb2.ScoreImagesHeader(options=OPTIONS)),
        Bulk(image=scoring_pb2.WholeImage(request_id="x" * 257, data=GOOD)),
        Bulk(image=scoring_pb2.WholeImage(request_id="x", media_type="x" * 257, data=GOOD)),
    ],
)
def test_a_bulk_stream_that_is_not_as_agreed_ends(stub: Stub, message: Bulk) -> None:
    header = Bulk(header=scoring_pb2.ScoreImagesHeader(options=OPTIONS))
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ScoreImages(iter([header, message]), timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_bulk_stream_without_a_header(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ScoreImages(iter([Bulk(image=scoring_pb2.WholeImage(request_id="a"))])))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_generic_client_needs_reflection_only(channel: grpc.Channel) -> None:
    """No generated code: the messages are built from what the server says of itself."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "imagesafety.v1.ScoringService" in database.get_services()
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("imagesafety.v1.ScoringService").FindMethodByName("ScoreImage")
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    call = channel.stream_unary(
        "/imagesafety.v1.ScoringService/ScoreImage",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    header = {"options": {"concepts": [{"name": "a", "prompts": {"prompts": [{"text": "red"}]}}]}}
    answer = call(iter([request(header=header), request(chunk=BAD)]), timeout=30)
    assert len(answer.scores.views[0].similarities) == 1  # type: ignore[attr-defined]


def test_health_by_name(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "imagesafety.v1.ScoringService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))  # type: ignore[attr-defined]
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


RED = ConceptSet([Concept("red", (Prompt("something red"),))])


async def test_a_deadline_that_cannot_be_met(pair: Pair) -> None:
    async with ScoringClient(pair.inference) as client:
        with pytest.raises(ScoringError) as caught:
            await client.score_image(chunks(GOOD), concepts=RED, timeout=0.0001)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_what_the_senders_source_raises_reaches_the_caller(pair: Pair) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield GOOD
        raise ConnectionResetError("gone")

    async with ScoringClient(pair.inference) as client:
        with pytest.raises(ConnectionResetError):
            await client.score_image(failing(), concepts=RED, timeout=30)


def test_a_full_service_refuses_at_once_and_recovers() -> None:
    with inference("--max-images", "1") as service, grpc.insecure_channel(service.address) as link:
        stub = scoring_pb2_grpc.ScoringServiceStub(link)
        slow = _Slow(GOOD)
        running = stub.ScoreImage.future(slow.messages(), timeout=30)
        slow.begun.wait()
        assert failure(stub, image(GOOD)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        slow.go.set()
        assert running.result().scores.views
        assert stub.ScoreImage(image(GOOD), timeout=30).scores.views


def test_a_bulk_stream_waits_for_room_and_loses_nothing() -> None:
    """More images than places, and more bytes than may be in flight."""
    flags = ("--max-image-bytes", "50000", "--max-bytes-in-flight", "100000", "--max-images", "3")
    with inference(*flags) as service, grpc.insecure_channel(service.address) as link:
        stub = scoring_pb2_grpc.ScoringServiceStub(link)

        def messages(count: int) -> Iterator[Bulk]:
            yield Bulk(header=scoring_pb2.ScoreImagesHeader(options=OPTIONS))
            for number in range(count):
                whole = scoring_pb2.WholeImage(request_id=f"w{number}", data=GOOD)
                yield Bulk(image=whole)
                for data, last in ((GOOD[:1000], False), (GOOD[1000:], True)):
                    name = f"c{number}"
                    chunk = scoring_pb2.ImageChunk(request_id=name, data=data, last=last)
                    yield Bulk(chunk=chunk)

        for _ in range(3):  # a stream that is broken off gives back what it held
            broken = stub.ScoreImages(messages(20), timeout=60)
            next(broken)
            broken.cancel()
        answers = list(stub.ScoreImages(messages(30), timeout=60))
        assert len(answers) == 60
        assert not [answer.error for answer in answers if answer.HasField("error")]


def test_sigterm_finishes_what_runs_and_refuses_what_comes() -> None:
    with inference() as service, grpc.insecure_channel(service.address) as link:
        stub = scoring_pb2_grpc.ScoringServiceStub(link)
        slow = _Slow(GOOD)
        running = stub.ScoreImage.future(slow.messages(), timeout=30)
        slow.begun.wait()
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in service.output(), "SIGTERM", 10)
        with pytest.raises(grpc.RpcError) as caught, grpc.insecure_channel(service.address) as new:
            scoring_pb2_grpc.ScoringServiceStub(new).ScoreImage(image(GOOD), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        slow.go.set()
        assert running.result().scores.views
        assert service.process.wait(30) == 0


class _Slow:
    """Sends the first half of an image, then waits to be told to send the other one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.begun, self.go = threading.Event(), threading.Event()

    def messages(self) -> Iterator[Request]:
        half = len(self.data) // 2
        yield from image(self.data[:half])
        self.begun.set()
        self.go.wait(30)
        yield Request(chunk=self.data[half:])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority("ca")
    write_authority(authority, folder, "ca")
    for name in ("server", "client"):
        write_issued(authority, folder, name)
    return folder


async def test_mutual_tls(certificates: Path) -> None:
    secured = inference(
        *("--tls-certificate", f"{certificates}/server.pem"),
        *("--tls-key", f"{certificates}/server.key"),
        *("--tls-client-ca", f"{certificates}/ca.pem"),
    )
    async with off_loop(secured) as service:
        ca = certificates / "ca.pem"
        known = TlsFiles(ca, certificates / "client.pem", certificates / "client.key")
        async with ScoringClient(service.address, known) as client:
            assert (await client.score_image(chunks(GOOD), concepts=RED, timeout=30)).views
        for stranger in (TlsFiles(ca), None):
            async with ScoringClient(service.address, stranger) as client:
                with pytest.raises(ScoringError) as caught:
                    await client.score_image(chunks(GOOD), concepts=RED, timeout=5)
                assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_unix_socket(tmp_path: Path) -> None:
    with inference(listen=f"unix:{tmp_path}/inference.sock") as service:
        assert service.process.poll() is None
