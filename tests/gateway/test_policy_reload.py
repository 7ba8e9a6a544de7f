"""A new policy on a running gateway: whole, warm and fit for inference, or the old one stays."""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from gateway.metrics import Metrics
from gateway.policy_in_force import CurrentPolicy
from gateway.policy_reload import LARGEST_BYTES, LOOKS_BETWEEN_TRIES, PolicyReloader
from gateway.policy_trial import TRIAL_PNG
from imagesafety.client import ScoringClient
from imagesafety.policy import Policy
from imagesafety.policy_file import load_policy
from imagesafety.probe_file import ProbeFile, probe_bytes
from imagesafety.v1 import scoring_pb2
from inference.decoder.decode import Decoder
from inference.decoder.media import MediaLimits, Preprocessing, Request
from tests.e2e.processes import wait_until
from tests.e2e.scripted_inference import Behaviour, Context, read_all, scores, scripted

OLD = """\
model = "demo"
[concepts]
a = ["a"]
[groups.g]
thresholds = { a = 0.5 }
[[rules]]
name = "stop"
all = ["g"]
"""
NEW = OLD.replace("0.5", "0.6")
# Its first part is a policy too, of which a rule is missing.
LONGER = NEW + '[[rules]]\nname = "watch"\nall = ["g"]\naction = "flag"\n'

Messages = AsyncIterator[scoring_pb2.ScoreImageRequest]


class Notebook:
    """Remembers the policies that are to be kept."""

    def __init__(self) -> None:
        self.noted: list[Policy] = []

    def note_policy(self, policy: Policy) -> None:
        self.noted.append(policy)


class Reloading:
    """A reloader with what it works on."""

    def __init__(self, path: Path, client: ScoringClient, look_seconds: float) -> None:
        self.path = path
        self.current = CurrentPolicy(load_policy(path))
        self.metrics = Metrics()
        self.notebook = Notebook()
        self.reloader = PolicyReloader(
            path, self.current, client, self.notebook, self.metrics, look_seconds=look_seconds
        )

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            await self.reloader.look()

    @property
    def text(self) -> str:
        """The policy in force."""
        return self.current.value.policy.text

    def has(self, text: str) -> bool:
        return self.text == text

    def counted(self, outcome: str) -> float:
        labels = {"outcome": outcome}
        value = self.metrics.registry.get_sample_value("imagesafety_policy_reloads_total", labels)
        return value or 0.0


async def good(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
    await read_all(messages)
    return scores(0.1)


@contextlib.asynccontextmanager
async def reloading(
    folder: Path, behaviour: Behaviour = good, look_seconds: float = 0.01
) -> AsyncIterator[Reloading]:
    path = folder / "policy.toml"
    path.write_text(OLD)
    async with scripted(behaviour) as (target, _), ScoringClient(target) as client:
        yield Reloading(path, client, look_seconds)


async def test_a_byte_order_mark_is_no_change(tmp_path: Path) -> None:
    async with reloading(tmp_path) as it:
        for text, taken in ((OLD, OLD), (NEW, NEW)):
            it.path.write_text("\ufeff" + text)
            await it.look()
            assert it.text == taken
            assert it.reloader.trouble() is None


async def test_an_unchanged_file_asks_nothing_of_inference(tmp_path: Path) -> None:
    async def unexpected(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        raise AssertionError

    async with reloading(tmp_path, unexpected) as it:
        before = it.current.value
        await it.look(5)
        it.path.write_text(OLD)
        await it.look(5)
        assert it.current.value is before
        assert it.reloader.trouble() is None
        assert it.counted("taken") == it.counted("refused") == 0


async def test_a_changed_file_is_taken_once_two_looks_have_found_the_same(tmp_path: Path) -> None:
    async with reloading(tmp_path) as it:
        it.path.write_text(NEW)
        await it.look(1)
        assert it.text == OLD
        await it.look(1)
        assert it.text == NEW
        await it.look(5)
        assert it.counted("taken") == 1
        assert [policy.text for policy in it.notebook.noted] == [NEW]
        assert it.current.value.policy == load_policy(it.path)


async def test_a_file_that_is_written_in_two_halves_is_not_taken_half(tmp_path: Path) -> None:
    async with reloading(tmp_path) as it:
        for length in range(len(NEW), len(LONGER)):
            it.path.write_text(LONGER[:length])
            await it.look(1)
            assert it.text == OLD
        assert it.counted("refused") == 0
        it.path.write_text(LONGER)
        await it.look()
        assert it.text == LONGER


async def test_asking_while_a_file_is_half_written_does_not_take_it_half(tmp_path: Path) -> None:
    """A look by the clock and one for a signal, right after each other, are not two looks."""
    async with reloading(tmp_path, look_seconds=3600) as it:
        it.path.write_text(NEW)
        running = asyncio.create_task(it.reloader.run())
        for _ in range(20):
            it.reloader.ask()
            await asyncio.to_thread(time.sleep, 0.01)  # time for a look, and for a wrong answer
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert it.text == OLD


def test_the_picture_for_warming_up_can_be_decoded() -> None:
    preprocessing = Preprocessing(64, 64, "squash", "bicubic", 0)
    limits = MediaLimits(max_pixels=40_000_000, max_frames=10, max_seconds=10)
    request = Request("", max_frames=1, frame_seconds=60, tiles=3)
    decoded = Decoder(preprocessing, limits, random.Random(1)).decode(TRIAL_PNG, request)
    assert len(decoded.views) == 1


async def test_a_swapped_link_is_followed_as_config_maps_need(tmp_path: Path) -> None:
    async with reloading(tmp_path) as it:
        for name, text in (("one", OLD), ("two", NEW)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "policy.toml").write_text(text)
        it.path.unlink()
        (tmp_path / "data").symlink_to("one")
        it.path.symlink_to("data/policy.toml")
        await it.look(3)
        assert (it.text, it.counted("refused")) == (OLD, 0)
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").replace(tmp_path / "data")
        await it.look()
        assert it.text == NEW


def _missing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _written(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_missing, "no such policy file"),
        (_folder, "no such policy file"),
        (_written(b""), "no concept"),
        (_written(NEW[:40].encode()), "policy.toml"),
        (_written(NEW.replace("0.6", "1.6").encode()), "line 5: 1.6 for 'a' is outside"),
        (_written(b"\xff\xfe"), "cannot be read"),
        (_written(b"a = " + 100_000 * b"["), "not valid TOML"),
        (_written(b"#" * (LARGEST_BYTES + 1)), f"over {LARGEST_BYTES} bytes"),
    ],
)
async def test_what_is_no_policy_leaves_the_old_one_in_force(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    async with reloading(tmp_path) as it:
        spoil(it.path)
        await it.look(20)
        assert it.text == OLD
        assert reason in (it.reloader.trouble() or "")
        assert it.counted("refused") == 1
        (warning,) = caplog.records
        assert warning.levelno == logging.WARNING
        assert reason in warning.message
        # And when the file is as it was, all is well.
        if it.path.is_dir():
            it.path.rmdir()
        it.path.write_text(OLD)
        await it.look()
        assert it.reloader.trouble() is None
        it.path.write_text(NEW)
        await it.look()
        assert it.text == NEW


async def test_the_new_concepts_are_scored_before_they_are_in_force(tmp_path: Path) -> None:
    asked: list[scoring_pb2.ScoringOptions] = []

    async def noting(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        data = b""
        async for message in messages:
            if message.HasField("header"):
                asked.append(message.header.options)
            data += message.chunk
        assert data == TRIAL_PNG
        assert it.text == OLD
        return scores(0.1, 0.2)

    async with reloading(tmp_path, noting) as it:
        detail = "[detail]\ntiles = 2\nmargin = 0.1\n"
        it.path.write_text(NEW.replace('a = ["a"]', 'a = ["a"]\nb = ["another", "b"]') + detail)
        await it.look()
        assert it.text != OLD
        (options,) = asked
        assert [concept.name for concept in options.concepts] == ["a", "b"]
        assert [band.concept for band in options.detail.when] == ["a"]
        assert options.detail.tiles == 2


@pytest.mark.parametrize(
    ("answer", "text", "reason"),
    [
        (scores(0.1), NEW.replace('"demo"', '"other"'), "for model other, inference has demo"),
        (scores(0.1), f'weights_digest = "sha256:{"1" * 64}"\n{NEW}', "other weights"),
        (scores(float("nan")), NEW, "not a finite number"),
        (scores(0.1, 0.2), NEW, "2 similarities for 1 concepts"),
    ],
)
async def test_a_policy_that_does_not_fit_inference_is_refused_until_it_does(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    answer: scoring_pb2.ScoreImageResponse,
    text: str,
    reason: str,
) -> None:
    response = answer

    async def answering(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        return response

    async with reloading(tmp_path, answering) as it:
        it.path.write_text(text)
        await it.look(3 * LOOKS_BETWEEN_TRIES)
        assert it.text == OLD
        assert reason in (it.reloader.trouble() or "")
        assert it.counted("refused") == 1
        assert len(caplog.records) == 1
        assert it.notebook.noted == []
        # Another model is rolled out.
        response = scores(0.1)
        response.scores.model.name = "other" if "other" in text else "demo"
        response.scores.model.weights_digest = f"sha256:{'1' * 64}"
        await it.look(2 * LOOKS_BETWEEN_TRIES)
        assert it.text == text
        assert it.reloader.trouble() is None


async def test_what_inference_refuses_is_refused(tmp_path: Path) -> None:
    async def refusing(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many concepts")

    async with reloading(tmp_path, refusing) as it:
        it.path.write_text(NEW)
        await it.look()
        assert it.text == OLD
        assert "inference refuses the policy: too many concepts" in (it.reloader.trouble() or "")
        assert it.counted("refused") == 1


async def test_while_inference_is_away_the_old_policy_stays_and_the_new_one_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = True

    async def sometimes(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        if away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not there")
        return await good(messages, context)

    async with reloading(tmp_path, sometimes) as it:
        it.path.write_text(NEW)
        await it.look(3 * LOOKS_BETWEEN_TRIES)
        assert it.text == OLD
        assert "waits for inference: not there" in (it.reloader.trouble() or "")
        assert it.counted("refused") == 0
        assert len(caplog.records) == 1
        away = False
        await it.look(2 * LOOKS_BETWEEN_TRIES)
        assert it.text == NEW
        assert it.reloader.trouble() is None
        assert it.counted("taken") == 1


async def test_it_looks_by_itself_and_when_asked(tmp_path: Path) -> None:
    async with reloading(tmp_path) as it:
        running = asyncio.create_task(it.reloader.run())
        for text in (NEW, LONGER, OLD):
            it.path.write_text(text)
            it.reloader.ask()
            await asyncio.to_thread(wait_until, partial(it.has, text), "the new policy", 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_mistake_that_is_taken_back_during_the_warm_up_is_never_in_force(
    tmp_path: Path,
) -> None:
    async def taking_back(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        (tmp_path / "policy.toml").write_text(OLD)
        return await good(messages, context)

    async with reloading(tmp_path, taking_back) as it:
        it.path.write_text(NEW)
        await it.look(5)
        assert it.text == OLD
        assert it.counted("taken") == 0
        assert it.reloader.trouble() is None


async def test_a_probe_that_comes_after_its_policy_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = f"sha256:{'1' * 64}"

    async def answering(messages: Messages, context: Context) -> scoring_pb2.ScoreImageResponse:
        await read_all(messages)
        response = scores(0.1)
        response.scores.model.weights_digest = weights
        return response

    def probe_policy(bias: float) -> tuple[bytes, str]:
        data = probe_bytes(ProbeFile("demo", weights, (1.0, 2.0), bias))
        digest = hashlib.sha256(data).hexdigest()
        named = f'a = {{ probe = "a.probe", sha256 = "{digest}" }}'
        return data, OLD.replace('a = ["a"]', named)

    async with reloading(tmp_path, answering) as it:
        data, text = probe_policy(0.5)
        it.path.write_text(text)
        await it.look(3 * LOOKS_BETWEEN_TRIES)
        assert it.text == OLD
        assert "line 3: there is no probe file" in (it.reloader.trouble() or "")
        assert it.counted("refused") == 1
        assert len(caplog.records) == 1
        (tmp_path / "a.probe").write_bytes(data)
        await it.look(2 * LOOKS_BETWEEN_TRIES)
        assert it.text == text
        assert it.current.value.concepts.messages[0].probe.bias == 0.5
        # Of another probe, the policy says another digest.
        data, text = probe_policy(-0.5)
        (tmp_path / "a.probe").write_bytes(data)
        await it.look()
        assert it.current.value.concepts.messages[0].probe.bias == 0.5
        it.path.write_text(text)
        await it.look()
        assert it.current.value.concepts.messages[0].probe.bias == -0.5
        assert it.reloader.trouble() is None
