"""What is done with hits is done once, whenever the process is killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagesafety.stored.actions import Action, Actor, Hit, Outcome
from imagesafety.stored.place import PlaceError, PlaceSettingError
from imagesafety.stored.quarantine import Quarantine
from imagesafety.stored.sealing import new_key, parse_key
from imagesafety.stored.state import State
from tests.stored.fakes import MemoryPlace, unreadable

DATA = b"a bad picture"
SHA256 = hashlib.sha256(DATA).digest()
KEY = parse_key(new_key())


class KilledError(BaseException):
    """The process is as good as killed."""


def kill(*_: object) -> Any:
    raise KilledError


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state.sqlite", "memory")
    yield state
    state.close()


@pytest.fixture
def place() -> MemoryPlace:
    return MemoryPlace({"a.png": DATA})


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    return Quarantine(str(tmp_path / "quarantine"), {}, KEY)


def actor(
    place: MemoryPlace,
    state: State,
    action: Action = Action.DELETE,
    *,
    apply: bool = True,
    quarantine: Quarantine | None = None,
) -> Actor:
    return Actor(*(place, state, action), apply=apply, most_bytes=1000, quarantine=quarantine)


def hit(place: MemoryPlace) -> Hit:
    return Hit(place.file("a.png"), SHA256, "a rule", {"bad": 0.9})


def actions_told(state: State) -> list[tuple[object, object]]:
    lines = [line for _, line in state.lines_after(0)]
    return [(line["action"], line["outcome"]) for line in lines if line["kind"] == "action"]


async def test_without_yes_it_is_only_said(place: MemoryPlace, state: State) -> None:
    for action, outcome in ((Action.REPORT, Outcome.NONE), (Action.DELETE, Outcome.WOULD)):
        acting = actor(place, state, action, apply=action is Action.REPORT)
        assert await acting.act(hit(place)) == (outcome, "")
    assert place.stored == {"a.png": DATA}
    assert actions_told(state) == []


async def test_a_file_is_deleted_once(place: MemoryPlace, state: State) -> None:
    found = hit(place)
    assert await actor(place, state).act(found) == (Outcome.DONE, "")
    assert (await actor(place, state).act(found))[0] is Outcome.GONE
    assert place.removed == ["a.png"]
    assert actions_told(state) == [("delete", "done")]
    assert state.open_actions() == []


@pytest.mark.parametrize("same_version", [False, True])
async def test_a_file_that_was_changed_is_left_alone(
    place: MemoryPlace, state: State, *, same_version: bool
) -> None:
    found = hit(place)
    place.stored["a.png"] = b"another"
    if same_version:  # a version is a time, after all
        found = Hit(place.file("a.png"), SHA256, "a rule", {})
    assert (await actor(place, state).act(found))[0] is Outcome.CHANGED
    assert place.stored == {"a.png": b"another"}


async def test_a_file_that_changes_at_the_last_moment_is_left_alone(
    place: MemoryPlace, state: State
) -> None:
    place.on_remove = lambda name: place.stored.update({name: b"another"})
    assert (await actor(place, state).act(hit(place)))[0] is Outcome.CHANGED
    assert place.stored == {"a.png": b"another"}


async def test_what_cannot_be_done_is_told_and_tried_another_time(
    place: MemoryPlace, state: State
) -> None:
    place.troubles["a.png"] = unreadable()
    outcome, why = await actor(place, state).act(hit(place))
    assert (outcome, why) == (Outcome.FAILED, "it can't be read")
    assert place.removed == []
    place.troubles = {}
    assert (await actor(place, state).act(hit(place)))[0] is Outcome.DONE


def before_removal(place: MemoryPlace) -> None:
    place.on_remove = kill


def after_removal(place: MemoryPlace) -> None:
    def gone(name: str) -> None:
        del place.stored[name]
        place.removed.append(name)
        raise KilledError

    place.on_remove = gone


def lost_after_removal(place: MemoryPlace) -> None:
    def gone(name: str) -> None:
        del place.stored[name]
        place.removed.append(name)
        raise PlaceError("the answer never came")

    place.on_remove = gone


@pytest.mark.parametrize("action", [Action.DELETE, Action.QUARANTINE])
@pytest.mark.parametrize("fault", [before_removal, after_removal, lost_after_removal])
async def test_a_kill_in_the_middle_neither_forgets_nor_doubles(
    place: MemoryPlace,
    state: State,
    quarantine: Quarantine,
    fault: Callable[[MemoryPlace], None],
    action: Action,
) -> None:
    found = hit(place)
    fault(place)
    with pytest.raises((KilledError, PlaceError)):
        await actor(place, state, action, quarantine=quarantine).act(found)
    place.on_remove = lambda name: None
    again = actor(place, state, action, quarantine=quarantine)
    was_done = await again.recover()
    assert was_done == (0 if fault is before_removal else 1)
    if not was_done:  # a scan finds it again
        assert (await again.act(found))[0] is Outcome.DONE
    assert place.removed == ["a.png"]
    assert actions_told(state) == [(action, "done")]
    assert await again.recover() == 0
    if action is Action.QUARANTINE:
        assert quarantine.get(SHA256) == DATA


async def test_a_quarantine_that_cannot_be_asked_is_asked_another_time(
    place: MemoryPlace, state: State, quarantine: Quarantine, tmp_path: Path
) -> None:
    after_removal(place)
    with pytest.raises(KilledError):
        await actor(place, state, Action.QUARANTINE, quarantine=quarantine).act(hit(place))
    (tmp_path / "a file").touch()
    away = Quarantine(str(tmp_path / "a file" / "below"), {}, KEY)
    with pytest.raises(PlaceError, match="quarantine can't be used"):
        await actor(place, state, Action.QUARANTINE, quarantine=away).recover()
    assert await actor(place, state, Action.QUARANTINE, quarantine=quarantine).recover() == 1
    assert actions_told(state) == [("quarantine", "done")]


async def test_a_file_goes_only_after_the_quarantine_has_it(
    place: MemoryPlace, state: State, quarantine: Quarantine, tmp_path: Path
) -> None:
    def is_there(name: str) -> None:
        assert quarantine.get(SHA256) == DATA

    place.on_remove = is_there
    acting = actor(place, state, Action.QUARANTINE, quarantine=quarantine)
    assert (await acting.act(hit(place)))[0] is Outcome.DONE
    assert {path.name for path in (tmp_path / "quarantine").iterdir()} == {
        f"{SHA256.hex()}.quarantined",
        f"{SHA256.hex()}.json",
    }
    [note] = json.loads((tmp_path / "quarantine" / f"{SHA256.hex()}.json").read_text())["found"]
    assert note["from"] == "memory"
    assert (note["name"], note["rule"]) == ("a.png", "a rule")
    assert note["similarities"] == {"bad": 0.9}


async def test_a_quarantine_that_fails_keeps_the_file(
    place: MemoryPlace, state: State, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    broken = Quarantine(str(tmp_path / "a file" / "below"), {}, KEY)
    outcome, why = await actor(place, state, Action.QUARANTINE, quarantine=broken).act(hit(place))
    assert outcome is Outcome.FAILED
    assert "quarantine can't be used" in why
    assert place.stored == {"a.png": DATA}


def test_actions_are_for_their_places(place: MemoryPlace, state: State) -> None:
    with pytest.raises(PlaceSettingError, match="is for pict-rs"):
        actor(place, state, Action.PURGE)
    place.removing = "purge"
    actor(place, state, Action.PURGE)
    with pytest.raises(PlaceSettingError, match="--action purge"):
        actor(place, state, Action.DELETE)
