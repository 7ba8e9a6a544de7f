"""The main job: pictures in through pict-rs's callback, verdicts out."""

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from imagesafety.policy import judge_image
from imagesafety.policy_file import find_policy, load_policy
from inference.demo.drawing import random_scene, render
from inference.model_source import DEMO_FOLDER
from tests.e2e.conftest import Pair
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import resident_bytes

KINDS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
MIB = 1024 * 1024


def drawn(*wanted: tuple[str, str], seed: int = 0, size: int = 300) -> Image.Image:
    return render(random_scene(np.random.default_rng(seed), wanted or None), size, size)


def encoded(image: Image.Image, media_type: str = "image/png", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, KINDS[media_type], **options)
    return data.getvalue()


BAD = encoded(drawn(("red", "triangle")))
GOOD = encoded(drawn(("blue", "circle")))


async def assert_well(pair: Pair) -> None:
    """The next requests are served as if nothing had happened."""
    bad, good = await asyncio.gather(post(pair.gateway, BAD), post(pair.gateway, GOOD))
    assert (bad.status, bad.body["rule"]) == (406, "red-and-triangle")
    assert (good.status, good.body["rule"]) == (200, None)


@pytest.mark.parametrize("media_type", KINDS)
async def test_each_type_is_accepted_and_rejected_by_the_policy(
    pair: Pair, media_type: str
) -> None:
    bad = drawn(("red", "triangle"), ("blue", "circle"))
    rejected = await post(pair.gateway, encoded(bad, media_type), media_type)
    assert rejected.status == 406
    assert rejected.body["decision"] == "reject"
    assert rejected.body["cause"] == "policy"
    assert rejected.body["rule"] == "red-and-triangle"
    assert rejected.body["id"]
    for harmless in ((("red", "circle"),), (("blue", "triangle"),), (("green", "star"),)):
        accepted = await post(pair.gateway, encoded(drawn(*harmless), media_type), media_type)
        assert (accepted.status, accepted.body["cause"]) == (200, "policy")


async def test_both_halves_of_the_conjunction_may_be_different_objects(pair: Pair) -> None:
    picture = drawn(("red", "circle"), ("blue", "triangle"), seed=4)
    assert (await post(pair.gateway, encoded(picture))).status == 406


async def test_200_pictures_are_judged_as_by_open_clip_called_directly(pair: Pair) -> None:
    rng = np.random.default_rng(77)
    pictures = [
        render(random_scene(rng), int(rng.integers(80, 500)), int(rng.integers(80, 500)))
        for _ in range(200)
    ]
    kinds = [list(KINDS)[index % 3] for index in range(200)]
    files = [encoded(picture, kind) for picture, kind in zip(pictures, kinds, strict=True)]
    gate = asyncio.Semaphore(16)

    async def one(file: bytes, kind: str) -> Answer:
        async with gate:
            return await post(pair.gateway, file, kind)

    answers = await asyncio.gather(*map(one, files, kinds))
    assert {answer.body["cause"] for answer in answers} == {"policy"}
    wanted = await asyncio.to_thread(open_clip_verdicts, files)
    assert [answer.status == 406 for answer in answers] == wanted
    assert 5 < sum(wanted) < 100


def open_clip_verdicts(files: list[bytes]) -> list[bool]:
    name = f"local-dir:{DEMO_FOLDER}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    policy = load_policy(find_policy("demo"))
    with torch.inference_mode():
        rows = []
        for concept in policy.concepts:
            texts = tokenizer([prompt.text for prompt in concept.prompts])
            mean = model.encode_text(texts, normalize=True).mean(0)
            rows.append(mean / mean.norm())
        images = torch.stack([preprocess(Image.open(io.BytesIO(f)).convert("RGB")) for f in files])
        similarities = model.encode_image(images, normalize=True) @ torch.stack(rows).T
    return [judge_image(policy, [row.tolist()]).rejects for row in similarities]


def broken_files() -> dict[str, tuple[bytes, str]]:
    jpeg = encoded(drawn(), "image/jpeg")
    return {
        "text": (b"this is no picture", "image/jpeg"),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], "image/jpeg"),
        "truncated png": (GOOD[: len(GOOD) // 2], "image/png"),
        "png declared jpeg": (GOOD, "image/jpeg"),
        "one byte": (b"\x89", "image/png"),
        "gif header only": (b"GIF89a", "image/gif"),
    }


@pytest.mark.parametrize("name", broken_files())
async def test_what_cannot_be_decoded_is_rejected_with_its_cause(pair: Pair, name: str) -> None:
    data, declared = broken_files()[name]
    answer = await post(pair.gateway, data, declared)
    assert (answer.status, answer.body["cause"]) == (406, "undecodable")
    assert answer.body["message"]
    await assert_well(pair)


def odd_pictures() -> dict[str, bytes]:
    shape = drawn(("blue", "circle"))
    turned = Image.Exif()
    turned[0x0112] = 8
    sixteen = Image.fromarray(np.asarray(shape.convert("L")).astype(np.uint16) * 257)
    jpeg = io.BytesIO()
    shape.convert("CMYK").save(jpeg, "JPEG")
    return {
        "1×1": encoded(Image.new("RGB", (1, 1), "red")),
        "10000×1": encoded(Image.new("RGB", (10_000, 1), "white")),
        "1×10000": encoded(Image.new("RGB", (1, 10_000), "white")),
        "16 bits": encoded(sixteen),
        "grey": encoded(shape.convert("L")),
        "palette with transparency": encoded(shape.convert("P"), transparency=3),
        "black and white": encoded(shape.convert("1")),
        "with alpha": encoded(shape.convert("RGBA")),
        "turned": encoded(shape, exif=turned),
    }


@pytest.mark.parametrize("name", odd_pictures())
async def test_odd_pictures_are_scored(pair: Pair, name: str) -> None:
    answer = await post(pair.gateway, odd_pictures()[name])
    assert (answer.status, answer.body["cause"]) == (200, "policy")


async def test_a_cmyk_photo_is_scored(pair: Pair) -> None:
    data = io.BytesIO()
    drawn(("red", "triangle")).convert("CMYK").save(data, "JPEG", quality=95)
    answer = await post(pair.gateway, data.getvalue(), "image/jpeg")
    assert answer.body["cause"] == "policy"


@pytest.mark.parametrize(
    ("status", "error", "data", "content_type", "path"),
    [
        (400, "empty_body", b"", "image/png", "/api/v1/scan/IPADDR"),
        (401, "not_allowed", GOOD, "image/png", "/api/v1/scan/some-secret"),
        (415, "unsupported_media_type", GOOD, "text/plain", "/api/v1/scan/IPADDR"),
        (415, "unsupported_media_type", GOOD, None, "/api/v1/scan/IPADDR"),
        (415, "unsupported_media_type", b"x" * 3 * MIB, "video/x", "/api/v1/scan/IPADDR"),
    ],
)
async def test_requests_that_are_no_upload(
    pair: Pair, status: int, error: str, data: bytes, content_type: str | None, path: str
) -> None:
    answer = await post(pair.gateway, data, content_type, path)
    assert (answer.status, answer.body["error"]) == (status, error)
    assert answer.body["message"]
    await assert_well(pair)


async def test_a_body_without_end_is_cut_off(pair: Pair) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield GOOD
        while True:
            sent += 64 * 1024
            yield bytes(64 * 1024)

    answer = await post(pair.gateway, endless())
    assert (answer.status, answer.body["error"]) == (413, "too_large")
    assert sent >= 39 * MIB
    await assert_well(pair)


async def test_large_bodies_never_sit_whole_in_the_gateway(pair: Pair) -> None:
    large = encoded(Image.effect_noise((4500, 4000), 100).convert("RGB"))
    assert 15 * MIB < len(large) < 40 * MIB
    before = resident_bytes(pair.gateway_pid)
    peak = before

    async def watched() -> AsyncIterator[bytes]:
        nonlocal peak
        for start in range(0, len(large), 256 * 1024):
            peak = max(peak, resident_bytes(pair.gateway_pid))
            yield large[start : start + 256 * 1024]

    answers = [await post(pair.gateway, watched()) for _ in range(3)]
    assert {answer.status for answer in answers} <= {200, 406}
    assert peak - before < len(large) / 2


async def test_a_forged_header_opens_nothing(pair: Pair) -> None:
    forged = (("X-Forwarded-For", "10.0.0.1"), ("X-Real-IP", "10.0.0.1"))
    answer = await post(pair.gateway, GOOD, path="/api/v1/scan/wrong", headers=forged)
    assert answer.status == 401
