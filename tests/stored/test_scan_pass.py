"""What a scan makes of a place, round by round."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from imagesafety.bulk import BulkImage, BulkResult, ServiceUnavailableError
from imagesafety.override_list import OverrideEntry
from imagesafety.policy import Policy
from imagesafety.scores import ModelIdentity, PerceptualHash
from imagesafety.stored.actions import Action, Actor, Outcome
from imagesafety.stored.allowances import Allowances
from imagesafety.stored.finding import Kind
from imagesafety.stored.judge import Judge
from imagesafety.stored.place import PlaceError, StoredFile, Unlisted
from imagesafety.stored.report_file import ReportFile
from imagesafety.stored.scan_pass import Looked, ScanPass, Scope, ServiceTroubleError
from imagesafety.stored.state import State
from imagesafety.stored.tally import Tally
from tests.e2e.processes import resident_bytes
from tests.stored.fakes import MODEL, MemoryPlace, MemoryScorer, Watcher, policy_of, unreadable

MOST_BYTES = 1000


@dataclass
class Scans:
    """One place and one state, and as many rounds as a test wants."""

    state: State
    place: MemoryPlace = field(default_factory=MemoryPlace)
    watcher: Watcher = field(default_factory=Watcher)

    async def round(
        self,
        policy: Policy | None = None,
        scorer: MemoryScorer | None = None,
        *,
        overrides: tuple[OverrideEntry, ...] = (),
        action: Action = Action.REPORT,
        apply: bool = False,
        limit: int | None = None,
        model: ModelIdentity = MODEL,
    ) -> Tally:
        tally, scorer = Tally(), scorer or MemoryScorer(model)
        judge = Judge(policy or policy_of(), Allowances(overrides), model, self.state)
        actor = Actor(self.place, self.state, action, apply=apply, most_bytes=MOST_BYTES)
        tally.recovered = await actor.recover()
        scan = ScanPass(
            *(self.place, self.state, judge, actor, tally, self.watcher),
            scope=Scope(limit=limit),
            most_bytes=MOST_BYTES,
            weights=model.weights_digest,
            clock=lambda: "now",
        )
        await scan.run(scorer)
        return tally

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        lines = [dict(line) for _, line in self.state.lines_after(0)]
        return [line for line in lines if line["kind"] in kinds] if kinds else lines


@pytest.fixture
def scans(tmp_path: Path) -> Iterator[Scans]:
    state = State(tmp_path / "state.sqlite", "memory")
    yield Scans(state)
    state.close()


async def test_hits_are_found_and_nothing_is_touched(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine", "b.png": b"bad", "c.png": b"odd"}
    tally = await scans.round()
    assert (tally.files, tally.looked_at, tally.complete) == (3, 3, True)
    [hit] = scans.lines("hit")
    assert (hit["name"], hit["rule"], hit["size"]) == ("b.png", "bad", 3)
    assert hit["similarities"] == {"bad": 0.9, "odd": 0.1}
    assert [line["name"] for line in scans.lines("flag")] == ["c.png"]
    assert len(scans.lines()) == 2
    assert set(scans.place.stored) == {"a.png", "b.png", "c.png"}


async def test_what_was_looked_at_is_not_looked_at_again(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine", "b.png": b"bad", "c.txt": b"error INVALID_ARGUMENT X"}
    await scans.round()
    lines, reads = scans.lines(), list(scans.place.reads)
    tally = await scans.round()
    assert (tally.files, tally.looked_at) == (3, 0)
    assert scans.lines() == lines
    assert scans.place.reads == reads


async def test_another_version_of_a_file_is_looked_at(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine", "b.png": b"fine"}
    await scans.round()
    scans.place.stored["a.png"] = b"bad"
    tally = await scans.round()
    assert tally.looked_at == 1
    assert [line["name"] for line in scans.lines("hit")] == ["a.png"]


async def test_other_weights_have_everything_looked_at_again(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine", "b.png": b"bad"}
    await scans.round()
    other = ModelIdentity("demo", "sha256:2", "none")
    assert (await scans.round(model=other)).looked_at == 2
    assert len(scans.lines("hit")) == 1


async def test_a_policy_with_the_same_concepts_needs_no_look(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine", "b.png": b"bad"}
    assert (await scans.round(policy_of(0.95))).looked_at == 2
    assert scans.lines() == []
    tally = await scans.round(policy_of(0.5))
    assert tally.looked_at == 0
    assert [line["name"] for line in scans.lines("hit")] == ["b.png"]
    await scans.round(policy_of(0.95))
    assert [line["name"] for line in scans.lines("clean")] == ["b.png"]  # it is none any more


async def test_another_concept_needs_a_look(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine", "b.png": b"error INVALID_ARGUMENT UNDECODABLE"}
    await scans.round()
    assert (await scans.round(policy_of(prompts="worse"))).looked_at == 1  # but not the broken one


async def test_a_closer_look_is_taken_where_a_policy_asks_for_one(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine"}
    await scans.round()
    closer = policy_of(extra="[detail]\ntiles = 2")
    assert (await scans.round(closer)).looked_at == 1
    assert (await scans.round(closer)).looked_at == 0


@pytest.mark.parametrize(
    ("data", "reason", "passes"),
    [
        (b"error INVALID_ARGUMENT UNDECODABLE", "UNDECODABLE", False),
        (b"error INVALID_ARGUMENT DECODER_CRASHED", "DECODER_CRASHED", False),
        (b"error RESOURCE_EXHAUSTED TOO_MANY_PIXELS", "TOO_MANY_PIXELS", False),
        (b"error INTERNAL ENCODER_FAILED", "ENCODER_FAILED", True),
        (b"error DEADLINE_EXCEEDED DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", True),
        (b"", "EMPTY_IMAGE", False),
        (b"x" * (MOST_BYTES + 1), "TOO_MANY_BYTES", False),
    ],
)
async def test_an_unreadable_file_is_a_problem_and_never_a_hit(
    scans: Scans, data: bytes, reason: str, *, passes: bool
) -> None:
    strict = policy_of(-1.0)  # rejects whatever can be looked at
    scans.place.stored = {"a.png": data}
    for number in range(2):
        tally = await scans.round(strict, action=Action.DELETE, apply=True)
        assert tally.looked_at == (1 if number == 0 or passes else 0)
        assert tally.complete is not passes
    [line] = scans.lines()
    assert (line["kind"], line["reason"]) == ("problem", reason)
    assert scans.place.stored == {"a.png": data}
    if len(data) > MOST_BYTES:
        assert scans.place.reads == []


async def test_a_file_that_cannot_be_read_is_tried_again_the_next_time(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"bad", "b.png": b"fine"}
    scans.place.troubles = {"a.png": unreadable()}
    assert not (await scans.round(action=Action.DELETE, apply=True)).complete
    assert [line["reason"] for line in scans.lines("problem")] == ["UNREADABLE"]
    scans.place.troubles = {}
    assert (await scans.round()).complete
    assert [line["name"] for line in scans.lines("hit")] == ["a.png"]


async def test_what_is_no_media_is_counted_and_not_listed(scans: Scans) -> None:
    scans.place.stored = {"a.db": b"error INVALID_ARGUMENT UNSUPPORTED_TYPE"}
    tally = await scans.round()
    assert tally.complete
    assert scans.watcher.seen == [("a.db", "not media", Outcome.NONE)]
    assert scans.lines() == []


async def test_a_file_that_is_gone_is_said_to_be(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"fine", "b.png": b"fine"}
    scans.place.troubles = {"a.png": unreadable("GONE")}
    scans.place.troubles["a.png"].may_pass = False  # type: ignore[attr-defined]
    assert (await scans.round()).complete
    assert scans.state.known("a.png") is None


async def test_a_part_of_a_file_is_a_hit_only_by_what_was_seen(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"bad", "b.png": b"fine", "c.png": b"odd"}
    await scans.round(scorer=MemoryScorer(partial="it ends too early"))
    said = {line["name"]: (line["kind"], line.get("reason")) for line in scans.lines()}
    assert said == {
        "a.png": ("hit", None),
        "b.png": ("problem", "PARTIAL"),
        "c.png": ("flag", None),
    }
    assert all("ends too early" in line["message"] for line in scans.lines())
    assert (await scans.round()).looked_at == 0


async def test_what_was_seen_in_part_for_a_passing_cause_is_looked_at_again(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"bad", "b.png": b"fine"}
    half = MemoryScorer(partial="no time", partial_reason="DEADLINE_EXCEEDED")
    assert not (await scans.round(scorer=half)).complete
    assert (await scans.round()).looked_at == 1  # a hit stays one


async def test_rules_in_shadow_mode_and_flags_are_never_acted_on(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"bad", "c.png": b"odd"}
    await scans.round(policy_of(mode='mode = "shadow"'), action=Action.DELETE, apply=True)
    assert {line["name"]: line["kind"] for line in scans.lines()} == {
        "a.png": "shadow",
        "c.png": "flag",
    }
    assert len(scans.place.stored) == 2


def entry(*, denies: bool, data: bytes = b"", pdq: bytes | None = None) -> OverrideEntry:
    sha256 = hashlib.sha256(data).digest() if data else None
    return OverrideEntry(denies, sha256, pdq, "bad" if pdq and not denies else "")


async def test_overrides_by_bytes_decide_and_are_not_scored(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"bad", "b.png": b"fine", "c.png": b"bad too"}
    scorer = MemoryScorer()
    overrides = (entry(denies=False, data=b"bad"), entry(denies=True, data=b"fine"))
    await scans.round(scorer=scorer, overrides=overrides)
    assert scorer.scored == ["c.png"]
    assert {line["name"]: line["rule"] for line in scans.lines("hit")} == {
        "b.png": "override",
        "c.png": "bad",
    }
    # Without them, what was never scored is; with them again, nothing is.
    assert (await scans.round()).looked_at == 2
    assert (await scans.round(overrides=overrides)).looked_at == 0


async def test_overrides_by_look_decide(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"bad", "b.png": b"bad", "c.png": b"fine"}
    await scans.round()
    meme = PerceptualHash(b"\x0f" * 32, 100)
    alike = bytes([0x1F]) + b"\x0f" * 31
    allowed = (entry(denies=False, pdq=alike),)
    scorer = MemoryScorer(hashes=(meme,))
    tally = await scans.round(scorer=scorer, overrides=allowed)
    assert (tally.looked_at, tally.kinds[Kind.CLEAN]) == (3, 3)
    denied = (entry(denies=True, pdq=alike),)
    tally = await scans.round(overrides=denied)
    assert (tally.looked_at, tally.kinds[Kind.HIT]) == (0, 3)
    assert (await scans.round()).looked_at == 0


async def test_no_more_are_looked_at_than_was_said(scans: Scans) -> None:
    scans.place.stored = {f"{number}.png": b"fine" for number in range(5)}
    for looked_at in (2, 2, 1, 0):
        assert (await scans.round(limit=2)).looked_at == looked_at


async def test_a_part_that_cannot_be_listed_is_one_line(scans: Scans) -> None:
    scans.place.unlisted = [Unlisted("shut/", "Permission denied")]
    for _ in range(2):
        assert not (await scans.round()).complete
    [line] = scans.lines()
    assert (line["name"], line["reason"]) == ("shut/", "UNREADABLE")


async def test_another_model_in_the_middle_ends_the_round(scans: Scans) -> None:
    scans.place.stored = {"a.png": b"bad"}
    for model in (ModelIdentity("demo", "sha256:2", ""), ModelIdentity("other", "sha256:1", "")):
        with pytest.raises(ServiceTroubleError):
            await scans.round(scorer=MemoryScorer(model))
    assert scans.lines() == []


async def test_a_place_that_goes_away_ends_the_round_and_one_bad_file_does_not(
    scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesafety.stored.reading._PAUSES", (0.0,))
    scans.place.stored = {"a.png": b"bad", "b.png": b"fine"}
    scans.place.troubles = {"a.png": PlaceError("timed out")}
    tally = await scans.round()
    assert tally.failed == {"UNREACHABLE": 1}
    scans.place.check_error = PlaceError("away")
    with pytest.raises(PlaceError, match="away"):
        await scans.round()


async def test_a_kill_anywhere_forgets_nothing_and_repeats_nothing(
    scans: Scans, tmp_path: Path
) -> None:
    names = [f"{number}.png" for number in range(40)]
    scans.place.stored = {name: b"bad" if name[0] == "3" else b"fine" for name in names}
    scored: list[str] = []
    report = tmp_path / "report.jsonl"
    for stop_after in (7, 13, 1, None):
        scorer = MemoryScorer(stop_after=stop_after)
        if stop_after is None:
            await scans.round(scorer=scorer)
        else:
            with pytest.raises(KeyboardInterrupt):
                await scans.round(scorer=scorer)
        scored += scorer.scored
        ReportFile(report, scans.state).close()
        with report.open("ab") as file:
            file.write(b'{"scan": "')  # as a kill leaves it
    assert sorted(scored) == sorted(names)
    ReportFile(report, scans.state).close()
    hits = [json.loads(line)["name"] for line in report.read_text().splitlines()]
    assert sorted(hits) == sorted(name for name in names if name[0] == "3")


class EndlessPlace(MemoryPlace):
    """Names that are made up as they are listed."""

    async def files(
        self, prefix: str, since: float | None
    ) -> AsyncGenerator[StoredFile | Unlisted, None]:
        for number in range(200_000):
            yield StoredFile(f"folder/{number:09}.png", 4, "1")

    async def read(self, file: StoredFile, most: int) -> bytes:
        return b"fine"


async def test_memory_does_not_grow_with_the_number_of_files(scans: Scans) -> None:
    scans.place = EndlessPlace()
    resident: list[int] = []

    class Measuring(Watcher):
        count = 0

        def found(self, *told: Any) -> None:
            self.count += 1
            if self.count in (20_000, 200_000):
                resident.append(resident_bytes(os.getpid()))

    class Forgetful(MemoryScorer):
        def __init__(self) -> None:
            super().__init__()
            self.scored = _Nothing()

    scans.watcher = Measuring()
    scans.state._db.execute("PRAGMA synchronous = OFF")
    tally = await scans.round(scorer=Forgetful())
    assert tally.files == 200_000
    assert resident[1] < resident[0] + 16 * 1024 * 1024  # the names alone would be more


class _Nothing(list[str]):
    def append(self, name: str) -> None:
        pass


class FullScorer(MemoryScorer):
    """Takes some images and then fails, with a source that is in the middle."""

    async def score(
        self, images: AsyncIterable[BulkImage[Looked]]
    ) -> AsyncGenerator[BulkResult[Looked], None]:
        async for image in images:
            yield self._result(image)
            raise ServiceUnavailableError("away")


async def test_a_service_that_fails_leaves_no_listing_open(scans: Scans) -> None:
    scans.place.stored = {f"{number}.png": b"fine" for number in range(200)}
    with pytest.raises(ServiceUnavailableError):
        await scans.round(scorer=FullScorer())
    assert scans.place.listings == 0


async def test_a_folder_that_cannot_be_listed_is_told_and_is_no_file(scans: Scans) -> None:
    scans.place.unlisted = [Unlisted("closed", "permission denied")]
    tally = await scans.round()
    assert scans.watcher.not_listed == ["closed"]
    assert (tally.files, tally.complete) == (0, False)
