"""The schedule against the best that could have been done by one who knew the future."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batch_schedule import ScheduleLimits
from tests.inference.simulation import Arrival, Simulation

TRACE = json.loads((Path(__file__).parent / "recorded_trace.json").read_text())["images"]
MAX_BATCH = 3
LIMITS = ScheduleLimits(MAX_BATCH, max_queue=100)


def seconds(size: int) -> float:
    """About what the recorded device took."""
    return 0.008 + 0.006 * size


def optimum(arrivals: tuple[Arrival, ...], takes: Callable[[int], float]) -> int:
    """How many images could have been done in time, by trying everything."""

    @cache
    def best(now: float, left: tuple[int, ...]) -> int:
        here = [i for i, a in enumerate(arrivals) if left[i] and a.at <= now and now < a.deadline]
        later = [a.at for i, a in enumerate(arrivals) if left[i] and a.at > now]
        found = best(min(later), left) if later else 0
        for counts in itertools.product(*(range(min(left[i], MAX_BATCH) + 1) for i in here)):
            if not 0 < sum(counts) <= MAX_BATCH:
                continue
            end = round(now + takes(sum(counts)), 9)
            after = list(left)
            for i, count in zip(here, counts, strict=True):
                after[i] -= count
            done = sum(
                after[i] == 0 and left[i] > 0 and end <= arrivals[i].deadline + 1e-9 for i in here
            )
            found = max(found, done + best(end, tuple(after)))
        return found

    return best(0.0, tuple(arrival.views for arrival in arrivals))


def ours(arrivals: tuple[Arrival, ...], takes: Callable[[int], float]) -> int:
    return len(Simulation(arrivals, LIMITS, takes).run().done())


def cases() -> Iterator[tuple[Arrival, ...]]:
    """Five images each that followed each other closely, with less time than the device needs."""
    for first in range(0, len(TRACE) - 4, 2):
        images = TRACE[first : first + 5]
        begin = images[0][0]
        if images[-1][0] - begin < 0.3:
            yield tuple(
                Arrival(
                    at=round(at - begin, 6),
                    views=min(views, 4),
                    deadline=round(at - begin + (1.1 + (7 * number) % 4) * seconds(MAX_BATCH), 6),
                    client=client,
                )
                for number, (at, views, client) in enumerate(images)
            )


def test_a_recorded_trace_is_served_about_as_well_as_it_could_be() -> None:
    pairs = [(ours(case, seconds), optimum(case, seconds)) for case in cases()]
    reached, possible = map(sum, zip(*pairs, strict=True))
    assert len(pairs) > 30
    assert possible < 5 * len(pairs)  # not everything could be done
    assert reached >= 0.95 * possible
    assert all(best - own <= 1 for own, best in pairs)


AT_ONCE = st.lists(
    st.builds(Arrival, at=st.just(0.0), deadline=st.integers(0, 6).map(float)), max_size=7
)


@settings(max_examples=300, deadline=None)
@given(AT_ONCE)
def test_of_what_is_there_at_once_as_much_is_done_in_time_as_can_be(
    arrivals: list[Arrival],
) -> None:
    """With batches that take the same time whatever their size, the earliest deadline is best."""
    assert ours(tuple(arrivals), lambda _: 1.0) == optimum(tuple(arrivals), lambda _: 1.0)


def test_the_optimum_is_found() -> None:
    first, second = Arrival(0.0, deadline=1.0), Arrival(0.0, deadline=math.inf)
    assert optimum((first, second), lambda size: float(size)) == 2
    assert optimum((first, first), lambda size: float(size)) == 1
