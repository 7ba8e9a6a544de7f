"""Every media type, every frame that matters, and files that mean harm, through the whole path."""

import asyncio
import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from imagesafety.client import ConceptSet, ScoringClient, ScoringError
from imagesafety.policy_file import find_policy, load_policy
from imagesafety.scores import ImageScores, PerceptualHash
from tests.e2e.conftest import Pair
from tests.e2e.pict_rs import Answer, pieces, post
from tests.e2e.processes import (
    children,
    free_port,
    gateway,
    is_serving,
    off_loop,
    resident_bytes,
    running,
    wait_until,
)
from tests.media import ALL, MOVING, drawn, file_of, moving, still

MIB = 1024 * 1024
CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
SUFFIXES = {
    ".avif": "image/avif",
    ".avifs": "image/avif",
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".jxl": "image/jxl",
    ".png": "image/png",
    ".webp": "image/webp",
}
GOOD, BAD = drawn(("blue", "circle")), drawn(("red", "triangle"))


def assert_rejected(answer: Answer) -> None:
    assert (answer.status, answer.body["cause"]) == (406, "policy")
    assert answer.body["rule"] == "red-and-triangle"


def assert_accepted(answer: Answer) -> None:
    assert (answer.status, answer.body["cause"]) == (200, "policy"), answer


@pytest.mark.parametrize("media_type", ALL)
async def test_each_type_is_accepted_and_rejected_by_the_policy(
    pair: Pair, media_type: str
) -> None:
    assert_rejected(await post(pair.gateway, file_of(BAD, media_type), media_type))
    assert_accepted(await post(pair.gateway, file_of(GOOD, media_type), media_type))


@pytest.mark.parametrize("media_type", MOVING)
async def test_one_bad_frame_in_the_middle_is_found(pair: Pair, media_type: str) -> None:
    good = [drawn(("blue", "circle"), seed=7, size=160)] * 15
    bad = drawn(("red", "triangle"), size=160)
    slow = [good[0].rotate(number / 4, fillcolor="white") for number in range(15)]
    for frames in (good, slow):
        data = moving([*frames, bad, *frames], media_type)
        assert_rejected(await post(pair.gateway, data, media_type))
        assert_accepted(await post(pair.gateway, moving(slow, media_type), media_type))


async def test_one_bad_frame_in_900_is_found_where_all_others_are_alike(pair: Pair) -> None:
    good = drawn(("blue", "circle"), seed=7, size=120)
    frames = [good.rotate(number / 100, fillcolor="white") for number in range(900)]
    frames[611] = drawn(("red", "triangle"), size=120)
    assert_rejected(await post(pair.gateway, moving(frames, "image/webp", 50), "image/webp"))
    assert_rejected(await post(pair.gateway, moving(frames, "video/mp4", 30), "video/mp4"))


async def test_with_max_frames_0_every_frame_is_looked_at(pair: Pair) -> None:
    frames = [drawn(seed=number, size=64) for number in range(60)]
    data = moving(frames, "image/webp")
    everything, some = await scored(pair, data, max_frames=0), await scored(pair, data)
    assert [view.frame_index for view in everything.views] == list(range(60))
    assert len(some.views) == 16
    assert (some.views[0].frame_index, some.views[-1].frame_index) == (0, 59)
    assert (some.frames, some.total_frames, some.duration) == (60, 60, 6.0)


async def test_a_bad_object_at_the_far_edge_of_a_banner_is_found(pair: Pair) -> None:
    for size, place in (((1200, 300), (900, 0)), ((300, 1200), (0, 900))):
        banner = Image.new("RGB", size, "white")
        banner.paste(GOOD, (0, 0))
        assert_accepted(await post(pair.gateway, still(banner)))
        banner.paste(BAD, place)
        assert_rejected(await post(pair.gateway, still(banner)))


async def scored(pair: Pair, data: bytes, **options: object) -> ImageScores:
    concepts = ConceptSet(load_policy(find_policy("demo")).concepts)
    async with ScoringClient(pair.inference) as client:
        return await client.score_image(
            pieces(data),
            concepts=concepts,
            timeout=30,
            **options,  # type: ignore[arg-type]
        )


def distance(one: PerceptualHash, other: PerceptualHash) -> int:
    return (int.from_bytes(one.pdq) ^ int.from_bytes(other.pdq)).bit_count()


async def test_a_copy_of_a_picture_has_almost_the_same_perceptual_hash(pair: Pair) -> None:
    original, other = drawn(seed=5, size=900), drawn(seed=6, size=900)
    copy = still(original.resize((320, 320)), "image/jpeg", quality=60)
    found = [
        await scored(pair, data, perceptual_hashes=True)
        for data in (still(original), copy, still(other))
    ]
    [[first], [again], [another]] = [scores.perceptual_hashes for scores in found]
    assert first.quality > 0
    assert distance(first, again) <= 31 < distance(first, another)
    assert not (await scored(pair, copy)).perceptual_hashes


async def test_every_picture_that_was_looked_at_has_a_perceptual_hash(pair: Pair) -> None:
    frames = [drawn(seed=number, size=160) for number in range(5)]
    animation = await scored(pair, moving(frames, "image/webp"), perceptual_hashes=True)
    assert [found.frame_index for found in animation.perceptual_hashes] == [0, 1, 2, 3, 4]
    shape = GOOD.convert("RGBA")
    shape.paste((0, 0, 0, 0), (0, 0, 150, 300))
    see_through = await scored(pair, still(shape), perceptual_hashes=True)
    assert [found.background for found in see_through.perceptual_hashes] == ["white", "black"]


async def test_the_times_of_a_closer_look_are_part_of_the_answer(pair: Pair) -> None:
    for tiles in (1, 3):
        scores = await scored(pair, small_triangle(), tiles=tiles)
        assert 0 < scores.decode_seconds < 30
        assert 0 < scores.encode_seconds < 30


def small_triangle() -> bytes:
    """Too small to be seen in the whole picture."""
    picture = Image.new("RGB", (1200, 1200), (235, 235, 235))
    picture.paste(drawn(("red", "triangle"), size=160), (100, 100))
    return still(picture)


async def test_a_closer_look_is_to_be_had_by_header(pair: Pair) -> None:
    plain = await scored(pair, small_triangle())
    closer = await scored(pair, small_triangle(), tiles=3)
    assert (len(plain.views), len(closer.views)) == (1, 14)
    assert closer.views[0].similarities == pytest.approx(plain.views[0].similarities, abs=1e-5)
    with pytest.raises(ScoringError) as caught:
        await scored(pair, small_triangle(), tiles=4)
    assert caught.value.reason == "INVALID_HEADER"


async def test_a_closer_look_is_to_be_had_by_policy(pair: Pair, tmp_path: Path) -> None:
    """In the same call, when the first look comes near to a threshold."""
    text = find_policy("demo").read_text()
    answers = {}
    for margin in ("0.01", "0.2"):
        file = tmp_path / f"{margin}.toml"
        file.write_text(f"{text}\n[detail]\ntiles = 3\nmargin = {margin}\n")
        async with off_loop(gateway(pair.inference, "--policy", str(file))) as closer:
            answers[margin] = await post(closer.address, small_triangle())
    assert_accepted(await post(pair.gateway, small_triangle()))
    assert_accepted(answers["0.01"])
    assert_rejected(answers["0.2"])


async def test_a_partial_file_is_rejected_unless_the_policy_says_otherwise(
    pair: Pair, tmp_path: Path
) -> None:
    good, bad = (still(image, "image/jpeg", quality=95) for image in (GOOD, BAD))
    good, bad = good[: len(good) * 8 // 10], bad[: len(bad) * 8 // 10]
    assert_rejected(await post(pair.gateway, bad, "image/jpeg"))
    answer = await post(pair.gateway, good, "image/jpeg")
    assert (answer.status, answer.body["cause"]) == (406, "undecodable")
    assert "the file ends too early" in answer.body["message"]
    file = tmp_path / "policy.toml"
    file.write_text(f'partial = "accept"\n{find_policy("demo").read_text()}')
    async with off_loop(gateway(pair.inference, "--policy", str(file))) as lenient:
        assert_accepted(await post(lenient.address, good, "image/jpeg"))
        assert_rejected(await post(lenient.address, bad, "image/jpeg"))


async def test_a_declared_type_that_contradicts_the_bytes_is_no_guess(pair: Pair) -> None:
    for media_type in ALL:
        declared = "video/webm" if media_type != "video/webm" else "video/mp4"
        answer = await post(pair.gateway, file_of(GOOD, media_type), declared)
        assert (answer.status, answer.body["cause"]) == (406, "undecodable"), media_type
        assert f"declared as {declared}" in answer.body["message"]


async def test_files_that_break_their_decoder_cost_one_error_each() -> None:
    address = f"127.0.0.1:{free_port()}"
    flags = ["--listen", address, "--decode-seconds", "4", "--decode-workers", "2"]
    command = ["tests.e2e.faulty_inference", *flags]
    async with (
        off_loop(running(command, address, lambda: is_serving(address))) as scoring,
        off_loop(gateway(address, "--repeats", "false")) as http,
    ):
        gate = asyncio.Semaphore(8)

        async def send(data: bytes) -> Answer:
            async with gate:
                return await post(http.address, data)

        faults = [b"fault:crash", b"fault:sleep", b"fault:spin", b"fault:exit", b"fault:crash"]
        good, bad = still(GOOD), still(BAD)
        files = [good, bad, good, bad, good, bad]
        answers = await asyncio.gather(
            *(send(data) for fault in faults for data in (fault, *files))
        )
        for start in range(0, len(answers), 7):
            broken, *others = answers[start : start + 7]
            assert (broken.status, broken.body["cause"]) == (406, "undecodable")
            assert [answer.status for answer in others] == [200, 406] * 3
            assert {answer.body["cause"] for answer in others} == {"policy"}
        assert scoring.process.poll() is None
        assert "SIGSEGV" in scoring.output()


async def test_a_file_that_takes_all_the_time_there_is_is_rejected(pair: Pair) -> None:
    """By its own fault: that inference is late would let it in. A JPEG with 4000 scans."""
    data = io.BytesIO()
    Image.new("RGB", (6000, 6000), "white").save(data, "JPEG", progressive=True)
    jpeg = data.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    scans = jpeg[:last] + jpeg[last:-2] * 4000 + jpeg[-2:]
    answer = await post(pair.gateway, scans, "image/jpeg")
    assert (answer.status, answer.body["cause"]) == (406, "undecodable"), answer
    assert_accepted(await post(pair.gateway, still(GOOD)))


def memory(pair: Pair) -> int:
    """Of the service and its decoders."""
    pids = [pair.inference_pid, *children(pair.inference_pid)]
    return sum(resident_bytes(pid) for pid in pids)


async def assert_memory_returns(pair: Pair, before: int) -> None:
    def returned() -> bool:
        return memory(pair) < before + 64 * MIB

    await asyncio.to_thread(wait_until, returned, "the memory's return", 10)


async def test_the_whole_corpus_is_answered(pair: Pair) -> None:
    files = sorted(path for path in CORPUS.rglob("*") if path.suffix in SUFFIXES)
    if not files:
        pytest.skip("the corpus is not here")
    good, bad = still(GOOD), still(BAD)
    for _ in range(20):
        assert_accepted(await post(pair.gateway, good))
    before, decoders = memory(pair), set(children(pair.inference_pid))
    answers: Counter[tuple[int, object]] = Counter()
    for number, path in enumerate(files):
        answer = await post(pair.gateway, path.read_bytes(), SUFFIXES[path.suffix])
        answers[answer.status, answer.body.get("cause", answer.body.get("error"))] += 1
        if number % 10 == 9:
            assert_accepted(await post(pair.gateway, good))
            assert_rejected(await post(pair.gateway, bad))
    assert set(answers) <= {
        (200, "policy"),
        (406, "policy"),
        (406, "undecodable"),
        (413, "too_large"),
    }, answers
    assert answers[200, "policy"] + answers[406, "policy"] > 850
    assert set(children(pair.inference_pid)) == decoders, "no decoder had to be replaced"
    await assert_memory_returns(pair, before)


async def test_large_pictures_leave_no_memory_behind(pair: Pair) -> None:
    data = io.BytesIO()
    Image.effect_noise((6000, 6000), 60).convert("RGB").save(data, "PNG", compress_level=1)
    large = data.getvalue()[: 40 * MIB]
    assert_accepted(await post(pair.gateway, still(GOOD)))
    before = memory(pair)
    for _ in range(2):
        answers = await asyncio.gather(*(post(pair.gateway, large) for _ in range(3)))
        assert {answer.status for answer in answers} <= {200, 406}
    await assert_memory_returns(pair, before)
