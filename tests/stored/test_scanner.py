"""Rounds of a scan against a service in the same process, and trouble between them."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imagesafety.admin_client import AdminApiError
from imagesafety.override_list import OverrideEntry
from imagesafety.scores import Limits, ModelDescription, ModelIdentity
from imagesafety.service_address import ServiceAddress
from imagesafety.stored import scanner as scanner_module
from imagesafety.stored.actions import Action
from imagesafety.stored.finding import Kind
from imagesafety.stored.place import PlaceError
from imagesafety.stored.scanner import MOST_TRIES, MismatchError, Scanner
from imagesafety.stored.settings import ScanSettings
from imagesafety.stored.state import State
from imagesafety.stored.tally import Tally, summary
from tests.stored.fakes import MODEL, MemoryPlace, MemoryScorer, Watcher, unreadable

POLICY = """
model = "demo"
[concepts]
bad = ["bad"]
odd = ["odd"]
[groups.bad]
thresholds = { bad = 0.5 }
[[rules]]
name = "bad"
all = ["bad"]
action = "reject"
"""


@dataclass
class FakeService:
    """In place of BulkScorer."""

    model: ModelIdentity = MODEL
    most_bytes: int = 1000
    errors: list[Exception] = field(default_factory=list)
    scorer: MemoryScorer = field(default_factory=MemoryScorer)

    def __call__(self, *_: object) -> FakeService:
        return self

    async def __aenter__(self) -> FakeService:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def describe_model(self, *, timeout: float) -> ModelDescription:  # noqa: ASYNC109
        if self.errors:
            raise self.errors.pop(0)
        limits = Limits(self.most_bytes, 1, 1, 1, 1, 1, (), 1, 1.0, 1)
        return ModelDescription(self.model, 1, 1, 1, limits)

    @property
    def score(self) -> object:
        return self.scorer.score


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    service = FakeService()
    monkeypatch.setattr(scanner_module, "BulkScorer", service)
    return service


@pytest.fixture
def scanner(tmp_path: Path, service: FakeService) -> Iterator[Scanner]:
    (tmp_path / "policy.toml").write_text(POLICY)
    state_file = tmp_path / "state.sqlite"
    settings = ScanSettings(
        tmp_path / "policy.toml",
        ServiceAddress("nowhere"),
        state_file,
        action=Action.DELETE,
        apply=True,
    )
    place = MemoryPlace({"a.png": b"fine", "b.png": b"bad"})
    state = State(state_file, "memory")
    said: list[str] = []
    scanner = Scanner(settings, place, state, Watcher(), said.append, pause=0.01)
    scanner.said = said  # type: ignore[attr-defined]
    yield scanner
    state.close()


def said(scanner: Scanner) -> list[str]:
    texts: list[str] = scanner.said  # type: ignore[attr-defined]
    return texts


async def test_a_round_goes_on_after_trouble(scanner: Scanner, service: FakeService) -> None:
    service.errors = [PlaceError("a moment"), PlaceError("another moment")]
    tally = await scanner.once()
    assert tally is not None
    assert (tally.files, tally.complete) == (2, True)
    assert list(scanner.place.stored) == ["a.png"]  # type: ignore[attr-defined]
    assert [text.partition(";")[0] for text in said(scanner)] == ["a moment", "another moment"]


async def test_trouble_that_stays_ends_it(scanner: Scanner, service: FakeService) -> None:
    service.errors = [PlaceError("away")] * 9
    with pytest.raises(PlaceError, match="away"):
        await scanner.once()


async def test_files_that_cannot_be_read_are_no_progress(scanner: Scanner) -> None:
    place = scanner.place
    assert isinstance(place, MemoryPlace)
    place.troubles = {"a.png": unreadable()}
    place.listing_errors = [PlaceError("the rest can't be listed")] * 9
    with pytest.raises(PlaceError, match="the rest"):
        await scanner.once()
    # The first try settles b.png, as the others do nothing.
    assert len(said(scanner)) == MOST_TRIES - 1


async def test_a_retry_forgets_nothing_that_was_done(scanner: Scanner) -> None:
    place = scanner.place
    assert isinstance(place, MemoryPlace)
    place.stored = {"a.png": b"fine", "b.png": b"bad", "c.png": b"bad too"}
    place.listing_errors = [PlaceError("a moment")]
    tally = await scanner.once()
    assert tally is not None
    lines = list(summary(tally, "memory", Action.DELETE))
    assert lines[0] == "memory: 3 files, 3 looked at now, 0 before"
    assert "  2 hits: bad 2" in lines
    assert "  2 deleted" in lines
    assert tally.complete


async def test_a_limit_is_for_all_tries(scanner: Scanner) -> None:
    place = scanner.place
    assert isinstance(place, MemoryPlace)
    place.stored = {"0.png": b"fine"}
    place.listing_errors = [PlaceError("a moment")]
    scanner.settings = replace(scanner.settings, limit=2)
    more = {f"{number}.png": b"fine" for number in range(1, 5)}
    scanner.say = lambda message: place.stored.update(more)
    tally = await scanner.once()
    assert tally is not None
    assert (tally.looked_at, place.reads) == (2, ["0.png", "1.png"])


async def test_nothing_is_done_without_the_list_of_overrides(scanner: Scanner) -> None:
    def away() -> tuple[OverrideEntry, ...]:
        raise AdminApiError("no gateway answers")

    scanner.settings = replace(scanner.settings, overrides=away)
    with pytest.raises(AdminApiError):
        await scanner.once()
    assert len(scanner.place.stored) == 2  # type: ignore[attr-defined]
    allowed = OverrideEntry(False, hashlib.sha256(b"bad").digest(), None)
    scanner.settings = replace(scanner.settings, overrides=lambda: (allowed,))
    tally = await scanner.once()
    assert tally is not None
    assert tally.kinds[Kind.CLEAN] == 2


async def test_a_window_goes_back_to_the_last_complete_round(scanner: Scanner) -> None:
    place, now = scanner.place, [10_000.0]
    assert isinstance(place, MemoryPlace)
    scanner.settings = replace(scanner.settings, since_seconds=100, every_seconds=0.01)
    scanner.clock = lambda: now[0]
    place.listing_errors = [PlaceError("away")]
    rounds: list[Tally] = []

    def outage(message: str) -> None:
        now[0] += 1000

    def ended(tally: Tally) -> None:
        rounds.append(tally)
        now[0] += (500, 10)[len(rounds) - 1]
        if len(rounds) == 2:
            scanner.stop.set()

    scanner.say = outage
    await scanner.for_ever(0.0, ended)
    assert place.listed_since == [9_900.0, 9_900.0, 11_000.0]
    scanner.stop.clear()
    scanner.settings = replace(scanner.settings, every_seconds=None)
    await scanner.once()  # which is meant as it is said
    assert place.listed_since[-1] == 11_410.0


async def test_what_was_too_large_is_looked_at_under_another_limit(
    scanner: Scanner, service: FakeService
) -> None:
    place = scanner.place
    assert isinstance(place, MemoryPlace)
    place.stored["large.png"] = b"x" * 1500
    for _ in range(2):
        await scanner.once()
    assert "large.png" not in place.reads
    service.most_bytes = 2000
    for _ in range(2):
        await scanner.once()
    assert place.reads.count("large.png") == 1
    assert place.reads.count("a.png") == 1


async def test_the_daemon_outlives_a_state_that_is_locked_for_a_while(
    scanner: Scanner, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    told: list[str] = []

    def let_go(message: str) -> None:
        told.append(message)
        if other.in_transaction:
            other.execute("ROLLBACK")

    scanner.say = let_go
    await scanner.for_ever(0.0, lambda tally: scanner.stop.set())
    other.close()
    assert "locked" in told[0]
    assert list(scanner.place.stored) == ["a.png"]  # type: ignore[attr-defined]


async def test_a_policy_for_another_model_is_not_applied(
    scanner: Scanner, service: FakeService
) -> None:
    service.model = ModelIdentity("other", "sha256:1", "")
    with pytest.raises(MismatchError, match="the policy is for model demo"):
        await scanner.once()
    assert len(scanner.place.stored) == 2  # type: ignore[attr-defined]


async def test_the_daemon_goes_on_through_trouble_and_reads_its_files_anew(
    scanner: Scanner, service: FakeService
) -> None:
    service.errors = [PlaceError("away")] * 3
    rounds: list[int] = []

    def ended(tally: Tally) -> None:
        rounds.append(tally.looked_at)
        if len(rounds) == 1:
            scanner.settings.policy.write_text("broken")
        if len(rounds) == 2:
            scanner.stop.set()

    scanner.say = mend(scanner, scanner.say)
    await scanner.for_ever(0.01, ended)
    assert rounds == [2, 0]
    assert any("policy.toml" in text for text in said(scanner))


def mend(scanner: Scanner, say: Callable[[str], None]) -> Callable[[str], None]:
    def and_mend(message: str) -> None:
        say(message)
        if "policy.toml" in message:
            scanner.settings.policy.write_text(POLICY)

    return and_mend


async def test_it_is_stopped_after_an_action_and_not_in_it(scanner: Scanner) -> None:
    place = scanner.place
    assert isinstance(place, MemoryPlace)
    began, go_on = asyncio.Event(), asyncio.Event()
    remove = place.remove

    async def slow(file: object) -> bool:
        began.set()
        await go_on.wait()
        return await remove(file)  # type: ignore[arg-type]

    place.remove = slow  # type: ignore[method-assign]
    working = asyncio.create_task(scanner.once())
    await began.wait()
    scanner.stop.set()
    await asyncio.sleep(0)
    go_on.set()
    assert await working is None
    assert list(place.stored) == ["a.png"]
    assert scanner.state.open_actions() == []


async def test_a_stop_ends_a_rest(scanner: Scanner, service: FakeService) -> None:
    service.errors = [PlaceError("away")] * 9
    scanner.pause = 1000.0
    scanner.say = lambda message: scanner.stop.set()
    assert await scanner.once() is None
    await scanner.for_ever(1000.0, lambda tally: None)
