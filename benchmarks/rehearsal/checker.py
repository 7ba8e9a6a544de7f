"""Whether a history is one that may happen. Pure code.

The model: an upload that was sent has exactly one end. If that is a decision, exactly one row of
the ledgers tells of it, with the same bytes, decision and cause. A scored row has the similarities
that the picture has when it is scored alone. There are no other rows.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.rehearsal.history import Answered, Event, Failed, LedgerRow, Sent

# A similarity may depend on what else is in the batch: 1e-5 in float32, tests/e2e say.
TOLERANCE = 1e-4
UNSCANNED = frozenset({"overload", "unavailable", "deadline", "error"})

Similarities = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Violation:
    """What must not happen. `kind` is one of a few words, for counting."""

    kind: str
    upload: int | None
    text: str

    def __str__(self) -> str:
        which = "" if self.upload is None else f" upload {self.upload}:"
        return f"{self.kind}:{which} {self.text}"


@dataclass(frozen=True)
class Verdict:
    """What the checker says: counts of what may happen, and what must not."""

    sent: int
    answered: int
    scored: int
    unscanned: Mapping[str, int]
    """By cause; accepted or refused, nobody has looked at them."""
    failed: Mapping[str, int]
    """By how they failed; answers that are no decisions under "HTTP" and their status."""
    violations: Sequence[Violation]
    latencies: Sequence[float]
    """Seconds of all answers, from when the upload was due, in ascending order."""

    @property
    def lost(self) -> int:
        """Failed uploads, without those whose client hung up by itself."""
        return sum(count for how, count in self.failed.items() if how != "hang-up")

    @property
    def unseen(self) -> int:
        """Uploads that were answered without scores."""
        return sum(self.unscanned.values())


def check(
    events: Iterable[Event], rows: Sequence[LedgerRow], expected: Mapping[int, Similarities]
) -> Verdict:
    """Compares the history with the ledgers' rows; `expected` are the similarities by picture."""
    sent, ends, violations = _sorted_out(events)
    by_id: dict[str, list[LedgerRow]] = defaultdict(list)
    by_bytes: dict[bytes | None, list[LedgerRow]] = defaultdict(list)
    for row in rows:
        by_id[row.id].append(row)
        by_bytes[row.sha256].append(row)
    unscanned: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    latencies, scored = [], 0
    for number, start in sent.items():
        mine = by_bytes[start.sha256]
        match ends.get(number):
            case None:
                violations.append(Violation("unanswered", number, "it has no end"))
            case Failed(how=how):
                failed[how] += 1
                if len(mine) > 1:
                    violations.append(_double(number, mine))
            case Answered(id="", status=status):
                failed[f"HTTP {status}"] += 1
                if mine:
                    text = f"HTTP {status} is no decision, and the ledger has one"
                    violations.append(Violation("stray row", number, text))
            case Answered() as end:
                latencies.append(end.at - start.at)
                violations += _of_answer(start, end, mine, by_id[end.id], expected)
                scored += end.cause == "policy"
                if end.cause in UNSCANNED:
                    unscanned[end.cause] += 1
    violations += _strangers(sent.values(), ends.values(), rows)
    return Verdict(
        sent=len(sent),
        answered=len(latencies),
        scored=scored,
        unscanned=dict(unscanned),
        failed=dict(failed),
        violations=violations,
        latencies=sorted(latencies),
    )


def _sorted_out(
    events: Iterable[Event],
) -> tuple[dict[int, Sent], dict[int, Answered | Failed], list[Violation]]:
    """The uploads and their ends by number, and what is wrong with the events by themselves."""
    sent: dict[int, Sent] = {}
    ends: dict[int, Answered | Failed] = {}
    violations = []
    for event in events:
        number = event.upload
        if isinstance(event, Sent):
            if number in sent:
                violations.append(Violation("double upload", number, "it was sent twice"))
            sent[number] = event
        elif number not in sent:
            violations.append(Violation("stray end", number, "it ended and was not sent"))
        elif number in ends:
            violations.append(Violation("double end", number, f"{ends[number]}, then {event}"))
        else:
            ends[number] = event
    return sent, ends, violations


def _of_answer(
    start: Sent,
    end: Answered,
    mine: Sequence[LedgerRow],
    same_id: Sequence[LedgerRow],
    expected: Mapping[int, Similarities],
) -> Iterable[Violation]:
    """What is wrong with the rows of an upload that was decided on."""
    number = start.upload
    if len(same_id) > 1 or len(mine) > 1:
        yield _double(number, same_id if len(same_id) > 1 else mine)
    if not same_id:
        yield Violation("lost row", number, f"no ledger has the decision {end.id}")
        return
    row = same_id[0]
    # Where the answer overtook the body, the gateway never had the hash.
    if row.sha256 != start.sha256 and not (row.sha256 is None and row.cause in UNSCANNED):
        yield Violation("wrong bytes", number, f"the row of {end.id} is for another file")
    if (row.decision, row.cause) != (end.decision, end.cause):
        text = f"answered {end.decision} ({end.cause}), recorded {row.decision} ({row.cause})"
        yield Violation("wrong row", number, text)
    if (end.decision == "accept") != (200 <= end.status < 300):
        yield Violation("wrong status", number, f"{end.decision} with HTTP {end.status}")
    if row.unscanned != (row.cause in UNSCANNED and row.decision == "accept"):
        yield Violation("wrong row", number, f"unscanned={row.unscanned} with cause {row.cause}")
    if row.cause == "policy":
        apart = distance(row.similarities, expected[start.picture])
        if not apart <= TOLERANCE:
            yield Violation("wrong score", number, f"{apart:.2g} from the picture scored alone")


def distance(found: Similarities, expected: Similarities) -> float:
    """The greatest difference of two similarities; infinite if they are not as many."""
    if [len(view) for view in found] != [len(view) for view in expected] or not expected:
        return math.inf
    pairs = (
        (a, b)
        for mine, theirs in zip(found, expected, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )
    return max((math.inf if math.isnan(a) else abs(a - b) for a, b in pairs), default=0.0)


def _double(number: int, rows: Sequence[LedgerRow]) -> Violation:
    where = ", ".join(f"{row.id} of {row.gateway}" for row in rows)
    return Violation("double row", number, f"the ledgers have {where}")


def _strangers(
    sent: Iterable[Sent], ends: Iterable[Answered | Failed], rows: Iterable[LedgerRow]
) -> Iterable[Violation]:
    """Rows that belong to no upload."""
    known_bytes = {start.sha256 for start in sent}
    known_ids = {end.id for end in ends if isinstance(end, Answered)}
    for row in rows:
        if row.id not in known_ids and row.sha256 not in known_bytes and row.sha256 is not None:
            text = f"{row.gateway} has {row.id} for bytes that nobody sent"
            yield Violation("stray row", None, text)
