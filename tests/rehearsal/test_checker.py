"""The checker finds what is wrong with a history, and nothing in one that is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rehearsal.checker import TOLERANCE, UNSCANNED, Verdict, check
from benchmarks.rehearsal.history import Answered, Event, Failed, LedgerRow, Sent

PICTURES = {number: ((number / 10, -number / 10),) for number in range(5)}
CAUSES = ("policy", "policy", "policy", *sorted(UNSCANNED))


@dataclass(frozen=True)
class Played:
    """A history that may happen, and its rows."""

    events: tuple[Event, ...]
    rows: tuple[LedgerRow, ...]

    def check(self) -> Verdict:
        return check(self.events, self.rows, PICTURES)

    def scored(self) -> list[int]:
        return [place for place, row in enumerate(self.rows) if row.cause == "policy"]


def sha(number: int) -> bytes:
    return number.to_bytes(32)


def decided(number: int, cause: str, decision: str, noise: float) -> tuple[Answered, LedgerRow]:
    status = 200 if decision == "accept" else 406 if cause == "policy" else 503
    similarities: tuple[tuple[float, ...], ...] = ()
    if cause == "policy":
        similarities = tuple(
            tuple(value + noise for value in view) for view in PICTURES[number % len(PICTURES)]
        )
    row = LedgerRow(
        gateway=f"gateway {number % 2}",
        id=f"id {number}",
        sha256=sha(number),
        decision=decision,
        cause=cause,
        unscanned=cause in UNSCANNED and decision == "accept",
        similarities=similarities,
    )
    return Answered(number, status, decision, cause, row.id, number + 0.5), row


@st.composite
def histories(draw: st.DrawFn) -> Played:
    """Uploads that are scored, let in unscanned, refused, lost, or left by their clients."""
    events: list[Event] = []
    rows = []
    for number in range(draw(st.integers(1, 12))):
        events.append(Sent(number, number % len(PICTURES), sha(number), float(number)))
        kind = draw(st.sampled_from(("decided", "decided", "decided", "connection", "hang-up")))
        cause = draw(st.sampled_from(CAUSES))
        decision = draw(st.sampled_from(("accept", "reject")))
        noise = draw(st.floats(-TOLERANCE / 2, TOLERANCE / 2))
        end, row = decided(number, cause, decision, noise)
        if kind == "decided":
            events.append(end)
            rows.append(row)
        else:
            events.append(Failed(number, kind, "", number + 0.5))
            if draw(st.booleans()):  # the gateway may have decided it all the same
                rows.append(row)
    # Ends come in any order, each after its beginning.
    ends = draw(st.permutations([event for event in events if not isinstance(event, Sent)]))
    begins = [event for event in events if isinstance(event, Sent)]
    return Played((*begins, *ends), tuple(draw(st.permutations(rows))))


ALL_SCORED = Played(
    tuple(
        event
        for number in range(4)
        for event in (
            Sent(number, number, sha(number), float(number)),
            decided(number, "policy", "accept", 0)[0],
        )
    ),
    tuple(decided(number, "policy", "accept", 0)[1] for number in range(4)),
)


def kinds(events: Sequence[Event], rows: Sequence[LedgerRow]) -> set[tuple[str, int | None]]:
    found = check(events, rows, PICTURES).violations
    return {(violation.kind, violation.upload) for violation in found}


@given(histories())
def test_nothing_is_found_in_a_history_that_may_happen(played: Played) -> None:
    verdict = played.check()
    assert verdict.violations == []
    assert verdict.sent == verdict.answered + sum(verdict.failed.values())
    assert verdict.answered == verdict.scored + verdict.unseen
    assert len(verdict.latencies) == verdict.answered


@given(histories(), st.data())
def test_a_lost_row_is_found(played: Played, data: st.DataObject) -> None:
    answered = {event.id: event.upload for event in played.events if isinstance(event, Answered)}
    places = [place for place, row in enumerate(played.rows) if row.id in answered]
    if places:
        place = data.draw(st.sampled_from(places))
        rows = played.rows[:place] + played.rows[place + 1 :]
        assert kinds(played.events, rows) == {("lost row", answered[played.rows[place].id])}


@given(histories(), st.data())
def test_a_double_row_is_found(played: Played, data: st.DataObject) -> None:
    if played.rows:
        row = data.draw(st.sampled_from(played.rows))
        number = int(row.id.removeprefix("id "))
        assert ("double row", number) in kinds(played.events, [*played.rows, row])
        elsewhere = replace(row, gateway="another", id="another")
        assert ("double row", number) in kinds(played.events, [*played.rows, elsewhere])


@given(histories(), st.data(), st.floats(2 * TOLERANCE, 1) | st.just(float("nan")))
def test_a_wrong_score_is_found(played: Played, data: st.DataObject, wrong: float) -> None:
    answered = {event.id: event.upload for event in played.events if isinstance(event, Answered)}
    places = [place for place in played.scored() if played.rows[place].id in answered]
    if places:
        place = data.draw(st.sampled_from(places))
        row = played.rows[place]
        (first, *rest), *views = row.similarities
        broken = replace(row, similarities=((first + wrong, *rest), *views))
        rows = [*played.rows[:place], broken, *played.rows[place + 1 :]]
        assert kinds(played.events, rows) == {("wrong score", answered[row.id])}


@given(histories(), st.data())
def test_an_upload_without_an_end_is_found(played: Played, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from([one for one in played.events if not isinstance(one, Sent)]))
    events = [other for other in played.events if other is not event]
    assert ("unanswered", event.upload) in kinds(events, played.rows)


@given(histories(), st.data())
def test_a_second_end_is_found(played: Played, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from([one for one in played.events if not isinstance(one, Sent)]))
    again = Failed(event.upload, "timeout", "", event.at + 1)
    assert kinds([*played.events, again], played.rows) == {("double end", event.upload)}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"decision": "reject"}, "wrong row"),
        ({"cause": "overload"}, "wrong row"),
        ({"unscanned": True}, "wrong row"),
        ({"sha256": sha(99)}, "wrong bytes"),
        ({"sha256": None}, "wrong bytes"),
        ({"similarities": ()}, "wrong score"),
        ({"similarities": (PICTURES[1][0], PICTURES[1][0])}, "wrong score"),
        ({"similarities": (PICTURES[2][0],)}, "wrong score"),
    ],
)
def test_a_row_that_is_not_the_answers_is_found(change: dict[str, object], kind: str) -> None:
    rows = list(ALL_SCORED.rows)
    rows[1] = replace(rows[1], **change)  # type: ignore[arg-type]
    assert (kind, 1) in kinds(ALL_SCORED.events, rows)


def test_a_row_of_nobody_is_found() -> None:
    stranger = replace(ALL_SCORED.rows[0], id="stranger", sha256=sha(99))
    assert kinds(ALL_SCORED.events, [*ALL_SCORED.rows, stranger]) == {("stray row", None)}


def test_an_end_of_nothing_is_found() -> None:
    end = Failed(99, "timeout", "", 1.0)
    assert kinds([*ALL_SCORED.events, end], ALL_SCORED.rows) == {("stray end", 99)}


def test_a_status_that_is_not_the_decisions_is_found() -> None:
    answer = ALL_SCORED.events[1]
    assert isinstance(answer, Answered)
    events = list(ALL_SCORED.events)
    events[1] = replace(answer, status=503)
    assert kinds(events, ALL_SCORED.rows) == {("wrong status", 0)}


def test_an_answer_that_is_no_decision_is_a_failed_upload() -> None:
    events: list[Event] = [Sent(0, 0, sha(0), 0.0), Answered(0, 502, "", "", "", 1.0)]
    verdict = check(events, [], PICTURES)
    assert (verdict.violations, verdict.failed, verdict.lost) == ([], {"HTTP 502": 1}, 1)


def test_who_hangs_up_has_lost_nothing() -> None:
    events: list[Event] = [Sent(0, 0, sha(0), 0.0), Failed(0, "hang-up", "", 1.0)]
    assert check(events, [], PICTURES).lost == 0


def test_an_upload_whose_budget_ran_out_before_its_end_has_a_row_without_its_hash() -> None:
    answer, row = decided(0, "deadline", "accept", 0)
    events: list[Event] = [Sent(0, 0, sha(0), 0.0), answer]
    assert check(events, [replace(row, sha256=None)], PICTURES).violations == []
