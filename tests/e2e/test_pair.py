"""The main job: pictures in through pict-rs's callback, verdicts out."""

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from imagesafety.policy_file import find_policy, load_policy
from imagesafety.verdict import judge_image
from inference.demo.drawing import canvas_size, random_aspect, random_scene, render
from inference.model_source import DEMO_FOLDER
from tests.e2e.conftest import Pair
from tests.e2e.pict_rs import Answer, post
from tests.e2e.processes import resident_bytes
from tests.media import drawn, still

KINDS = ("image/png", "image/jpeg", "image/webp", "image/gif")
MIB = 1024 * 1024


BAD = still(drawn(("red", "triangle")))
GOOD = still(drawn(("blue", "circle")))


async def assert_well(pair: Pair) -> None:
    """The next requests are served as if nothing had happened."""
    bad, good = await asyncio.gather(post(pair.gateway, BAD), post(pair.gateway, GOOD))
    assert (bad.status, bad.body["rule"]) == (406, "red-and-triangle")
    assert (good.status, good.body["rule"]) == (200, None)


async def test_a_rule_needs_all_its_groups(pair: Pair) -> None:
    for harmless in ((("red", "circle"),), (("blue", "triangle"),), (("green", "star"),)):
        accepted = await post(pair.gateway, still(drawn(*harmless)))
        assert (accepted.status, accepted.body["cause"]) == (200, "policy")


async def test_both_halves_of_the_conjunction_may_be_different_objects(pair: Pair) -> None:
    picture = drawn(("red", "circle"), ("blue", "triangle"), seed=4)
    assert (await post(pair.gateway, still(picture))).status == 406


async def test_200_pictures_are_judged_as_by_open_clip_called_directly(pair: Pair) -> None:
    rng = np.random.default_rng(77)
    # No longer than 1.5:1, so that they are one view each.
    sizes = [canvas_size(float(rng.integers(80, 400)), random_aspect(rng)) for _ in range(200)]
    pictures = [render(random_scene(rng, aspect=w / h), w, h) for w, h in sizes]
    kinds = [KINDS[index % 3] for index in range(200)]
    files = [still(picture, kind) for picture, kind in zip(pictures, kinds, strict=True)]
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
    jpeg = still(drawn(("blue", "circle")), "image/jpeg")
    return {
        "text": (b"this is no picture", "image/jpeg"),
        "truncated jpeg": (jpeg[: len(jpeg) // 2], "image/jpeg"),
        "jpeg header only": (jpeg[:300], "image/jpeg"),
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
        "1×1": still(Image.new("RGB", (1, 1), "red")),
        "10000×1": still(Image.new("RGB", (10_000, 1), "white")),
        "1×10000": still(Image.new("RGB", (1, 10_000), "white")),
        "16 bits": still(sixteen),
        "grey": still(shape.convert("L")),
        "palette with transparency": still(shape.convert("P"), transparency=3),
        "black and white": still(shape.convert("1")),
        "with alpha": still(shape.convert("RGBA")),
        "turned": still(shape, exif=turned),
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
    large = still(Image.effect_noise((4500, 4000), 100).convert("RGB"))
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
