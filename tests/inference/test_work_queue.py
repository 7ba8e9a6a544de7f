"""The queue's order, fairness and bounds, in random schedules."""

import math
import tracemalloc
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.work_queue import Priority, QueueFullError, WorkQueue

PLACES = 12
WEIGHTS = {"a": 3.0, "b": 0.5}  # and 1 for "c"
deadlines = st.floats(0, 100) | st.just(1e9)
clients = st.sampled_from("abc")
adds = st.tuples(
    st.just("add"), st.sampled_from(Priority), deadlines, clients, st.integers(1, PLACES)
)
removes = st.tuples(st.just("remove"), st.integers(0, 60))
works = st.tuples(st.just("work"), st.sampled_from(Priority), st.floats(0, 9), st.booleans())


@dataclass
class Waiting:
    priority: Priority
    due: float
    client: str
    places: int


class Model:
    """What has to hold, in the simplest words."""

    def __init__(self) -> None:
        self.queue: WorkQueue[str] = WorkQueue(PLACES, WEIGHTS)
        self.waiting: dict[int, Waiting] = {}
        # What clients were given since both of them began to wait, by priority and pair.
        self.given: dict[tuple[Priority, str, str], Counter[str]] = {}

    def add(self, priority: Priority, due: float, client: str, places: int) -> None:
        taken = sum(entry.places for entry in self.waiting.values())
        if self.waiting and taken + places > PLACES:
            with pytest.raises(QueueFullError):
                self.queue.add("x", priority, due, client, places)
            return
        ticket = self.queue.add(f"{client}{due}", priority, due, client, places)
        assert ticket not in self.waiting
        self.waiting[ticket] = Waiting(priority, due, client, places)

    def remove(self, ticket: int) -> None:
        entry = self.queue.remove(ticket)
        expected = self.waiting.pop(ticket, None)
        assert (entry is None) == (expected is None)
        if entry is not None and expected is not None:
            assert (entry.ticket, entry.client, entry.places) == (
                *(ticket, expected.client),
                expected.places,
            )
        self._forget_pairs()

    def work(self, least: Priority, later: float, last: bool) -> None:
        entry = self.queue.first(least)
        allowed = {t: e for t, e in self.waiting.items() if e.priority <= least}
        if entry is None:
            assert not allowed
            return
        chosen = allowed[entry.ticket]
        assert chosen.priority == min(e.priority for e in allowed.values())
        own = [(e.due, t) for t, e in allowed.items() if _flow(e) == _flow(chosen)]
        assert (chosen.due, entry.ticket) == min(own)
        self.queue.charge(entry.ticket, later)
        chosen.due += later
        self._count(chosen)
        if last:
            self.remove(entry.ticket)

    def _pairs(self) -> set[tuple[Priority, str, str]]:
        flows = {_flow(entry) for entry in self.waiting.values()}
        return {(p, a, b) for p, a in flows for q, b in flows if p == q and a < b}

    def _forget_pairs(self) -> None:
        alive = self._pairs()
        self.given = {pair: counts for pair, counts in self.given.items() if pair in alive}

    def _count(self, chosen: Waiting) -> None:
        for priority, a, b in self._pairs():
            counts = self.given.setdefault((priority, a, b), Counter())
            if priority == chosen.priority:
                counts[chosen.client] += 1
            of_a, of_b = WEIGHTS.get(a, 1.0), WEIGHTS.get(b, 1.0)
            # The bound that Goyal, Vin and Cheng prove.
            assert abs(counts[a] / of_a - counts[b] / of_b) <= 1 / of_a + 1 / of_b + 1e-9


def _flow(entry: Waiting) -> tuple[Priority, str]:
    return entry.priority, entry.client


@settings(max_examples=500, deadline=None)
@given(st.lists(adds | adds | removes | works | works, max_size=100))
def test_nothing_is_lost_or_doubled_and_order_shares_and_bounds_hold(
    schedule: list[tuple],  # type: ignore[type-arg]
) -> None:
    model = Model()
    for kind, *arguments in schedule:
        getattr(model, kind)(*arguments)
        assert len(model.queue) == len(model.waiting)


def served(queue: WorkQueue[str], count: int) -> list[str]:
    """The next `count` items, each done when it was charged once."""
    items = []
    for _ in range(count):
        entry = queue.first()
        assert entry is not None
        queue.charge(entry.ticket)
        queue.remove(entry.ticket)
        items.append(entry.item)
    return items


def test_an_entry_takes_its_places_and_a_large_one_comes_in_alone() -> None:
    queue: WorkQueue[str] = WorkQueue(4)
    large = queue.add("large", Priority.BULK, math.inf, places=9)
    with pytest.raises(QueueFullError):
        queue.add("small", Priority.INTERACTIVE, 0.0)
    queue.remove(large)
    queue.add("half", Priority.BULK, math.inf, places=2)
    queue.add("half", Priority.BULK, math.inf, places=2)
    with pytest.raises(QueueFullError):
        queue.add("small", Priority.INTERACTIVE, 0.0)


def test_an_unknown_ticket_is_nobody() -> None:
    queue: WorkQueue[str] = WorkQueue(4)
    assert queue.first() is None
    assert queue.remove(7) is None
    ticket = queue.add("a", Priority.BULK, 1.0)
    assert queue.first(Priority.INTERACTIVE) is None
    assert (queue.remove(ticket), queue.remove(ticket)) != (None, None)
    assert len(queue) == 0


def test_clients_share_by_weight_and_who_was_away_saved_up_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue(1000, {"heavy": 2.0})
    for name in ("heavy", "light"):
        for _ in range(60):
            queue.add(name, Priority.INTERACTIVE, math.inf, name)
    assert Counter(served(queue, 30)) == {"heavy": 20, "light": 10}
    for _ in range(20):
        queue.add("new", Priority.INTERACTIVE, 0.0, "new")
    assert Counter(served(queue, 20))["new"] in (5, 6)


@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_who_always_comes_back_with_one_entry_gets_no_more_than_a_share(weight: float) -> None:
    """As a client does that has one image with the device and one in the queue."""
    queue: WorkQueue[str] = WorkQueue(1000, {"other": weight})
    for _ in range(100):
        queue.add("flood", Priority.INTERACTIVE, 1.0, "flood")
    waits, count = False, 0
    for _ in range(100):
        if not waits:
            queue.add("other", Priority.INTERACTIVE, 0.0, "other")
        waits = served(queue, 1) == ["flood"]
        count += not waits
    assert count <= 100 * weight / (1 + weight) + 2


@pytest.mark.parametrize("others", [0, 5])
def test_a_flood_of_cancelled_calls_takes_no_memory(others: int) -> None:
    queue: WorkQueue[int] = WorkQueue(max_places=10)
    for _ in range(others):
        queue.add(0, Priority.BULK, math.inf, "x")
    tracemalloc.start()
    try:
        for number in range(20_000):
            client = "x" if others else f"client {number}"
            queue.remove(queue.add(0, Priority.BULK, math.inf, client))
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert len(queue) == others


entries = st.tuples(st.sampled_from(Priority), deadlines, clients, st.integers(1, 4))


@settings(max_examples=500, deadline=None)
@given(st.lists(entries, max_size=30), st.integers(0, 20), entries)
def test_what_is_said_to_be_ahead_is_served_before(
    waiting: list[tuple[Priority, float, str, int]],
    worked: int,
    new: tuple[Priority, float, str, int],
) -> None:
    """But for one unit of each other client, where two have the same turn."""
    queue: WorkQueue[str] = WorkQueue(1000, WEIGHTS)
    left: dict[int, int] = {}

    def work() -> int | None:
        entry = queue.first()
        if entry is None:
            return None
        queue.charge(entry.ticket)
        left[entry.ticket] -= 1
        if not left[entry.ticket]:
            queue.remove(entry.ticket)
        return entry.ticket

    for priority, due, client, units in waiting:
        left[queue.add("x", priority, due, client, units=units)] = units
    for _ in range(worked):
        work()
    assert queue.waiting() == sum(left.values())
    priority, due, client, units = new
    ahead = queue.ahead(priority, due, client, units)
    ticket = queue.add("new", priority, due, client, units=units)
    left[ticket] = units
    before = 0
    while left[ticket]:
        before += work() != ticket
    assert ahead - 2 <= before <= ahead
