"""The queue's order and bounds, in random schedules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.work_queue import Priority, QueueFullError, WorkQueue

deadlines = st.floats(0, 100) | st.just(math.inf)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(Priority), deadlines),
        st.tuples(st.just("remove"), st.integers(0, 50), st.none()),
        st.tuples(st.just("take"), st.integers(1, 6), st.floats(0, 5)),
    ),
    max_size=120,
)


@given(operations)
def test_nothing_is_lost_or_doubled_and_the_order_holds(schedule: list[tuple]) -> None:  # type: ignore[type-arg]
    queue: WorkQueue[int] = WorkQueue(max_entries=10)
    waiting: dict[int, tuple[Priority, float]] = {}
    now = 0.0
    for kind, first, second in schedule:
        if kind == "add" and len(waiting) == 10:
            with pytest.raises(QueueFullError):
                queue.add(0, first, second)
        elif kind == "add":
            ticket = queue.add(0, first, second)
            assert ticket not in waiting
            waiting[ticket] = (first, second)
        elif kind == "remove":
            queue.remove(first)
            waiting.pop(first, None)
        else:
            now += second
            taken = queue.take(now, first)
            order = sorted(waiting, key=lambda ticket: (*waiting[ticket], ticket))
            alive = [ticket for ticket in order if waiting[ticket][1] > now]
            assert [ticket for ticket, _ in taken.batch] == alive[:first]
            for ticket, _ in taken.late:
                assert waiting[ticket][1] <= now
            for ticket, _ in (*taken.batch, *taken.late):
                del waiting[ticket]
        assert len(queue) == len(waiting)


def test_a_flood_of_cancelled_calls_takes_no_memory() -> None:
    queue: WorkQueue[int] = WorkQueue(max_entries=10)
    for _ in range(10_000):
        queue.remove(queue.add(0, Priority.BULK, math.inf))
    assert len(queue._heap) < 200
