"""What comes when there is more to do than can be done in time, on the simulated clock."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batch_schedule import ScheduleLimits
from inference.batch_times import BatchTimes
from inference.work_queue import Priority
from tests.inference.simulation import Arrival, Record, Simulation

LIMITS = ScheduleLimits(max_batch=8, max_queue=100_000, spare=0.2)
CAPACITY = 80.0  # images a second, in batches of 8


def seconds(size: int) -> float:
    return 0.02 + 0.01 * size


def load(
    times: float, *, lasts: float = 30.0, budget: float = 4.0, clients: str = "a"
) -> list[Arrival]:
    """Images at random, `times` as many as can be done."""
    chance, at, arrivals = random.Random(7), 0.0, []
    while at < lasts:
        at += chance.expovariate(times * CAPACITY)
        due = at + budget * chance.uniform(0.8, 1.0)  # some took longer to be sent
        arrivals.append(Arrival(at, deadline=due, client=chance.choice(clients)))
    return arrivals


def in_time(arrivals: list[Arrival], record: Record) -> list[int]:
    return [i for i in record.done() if record.ends[i][1] <= arrivals[i].deadline]


@pytest.mark.parametrize("times", [1.5, 3.0, 10.0])
@pytest.mark.parametrize("budget", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("clients", ["a", "abc"])
def test_goodput_holds_under_overload(times: float, budget: float, clients: str) -> None:
    """Also where batches take from four fifths to a third more than they should."""
    arrivals = load(times, budget=budget, clients=clients)
    chance = random.Random(3)
    record = Simulation(
        arrivals,
        LIMITS,
        lambda size: seconds(size) * chance.uniform(0.8, 1.33),
        BatchTimes({size: seconds(size) for size in range(1, 9)}),
    ).run()
    mean = 1.065  # of what batches take
    assert len(in_time(arrivals, record)) >= 0.9 * CAPACITY / mean * 30.0
    assert len(in_time(arrivals, record)) >= 0.95 * len(record.done())


@pytest.mark.parametrize("times", [1.5, 3.0, 10.0])
def test_goodput_holds_on_a_device_that_is_slower_than_it_was_measured(times: float) -> None:
    arrivals = load(times, budget=1.0)
    measured = BatchTimes({size: seconds(size) / 1.6 for size in range(1, 9)})
    record = Simulation(arrivals, LIMITS, seconds, measured).run()
    assert len(in_time(arrivals, record)) >= 0.9 * CAPACITY * 30.0


@pytest.mark.parametrize("slower", [5.0, 10.0, 20.0])
@pytest.mark.parametrize("rate", [1.0, 3.0])
def test_goodput_returns_on_a_device_that_became_much_slower(slower: float, rate: float) -> None:
    """Where callers go at their deadlines. What was refused with reason is no cause to doubt."""
    measured, chance = BatchTimes({size: 0.1 * size for size in range(1, 9)}), random.Random(5)
    due = [(at / rate, at / rate + chance.uniform(7.2, 8.0)) for at in range(int(rate * 180))]
    arrivals = [Arrival(at, deadline=end, gone=end) for at, end in due]
    takes = lambda size: 0.1 * slower * size * chance.uniform(0.95, 1.05)  # noqa: E731
    record = Simulation(arrivals, LIMITS, takes, measured).run()
    ends = [record.ends[image][1] for image in in_time(arrivals, record)]
    assert sum(60.0 <= end < 180.0 for end in ends) >= 0.9 * 120.0 * min(rate, 10.0 / slower)


def test_nearly_all_of_what_is_too_much_is_told_at_once() -> None:
    arrivals = load(3.0, clients="abc")
    record = Simulation(arrivals, LIMITS, seconds).run()
    ends = Counter(end for end, _ in record.ends.values())
    assert ends["full"] > 0.95 * (ends["full"] + ends["late"])
    for image, (end, at) in record.ends.items():
        assert end != "full" or at == arrivals[image].at


def test_below_the_capacity_nothing_is_refused() -> None:
    arrivals = load(0.8, clients="abc")
    assert len(Simulation(arrivals, LIMITS, seconds).run().done()) == len(arrivals)


MIXED = st.lists(
    st.builds(
        Arrival,
        at=st.floats(0, 2),
        views=st.integers(1, 3),
        priority=st.sampled_from(Priority),
        deadline=st.floats(2, 5),
        client=st.sampled_from("abc"),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=500, deadline=None)
@given(MIXED, st.sampled_from([{}, {"a": 3.0}]))
def test_nothing_is_refused_that_would_have_been_done_with_time_to_spare(
    arrivals: list[Arrival], weights: dict[str, float]
) -> None:
    """Of uploads: bulk work counts all uploads ahead, also those that will be refused."""
    limits = ScheduleLimits(max_batch=4, max_queue=1000, spare=0.2, weights=weights)
    record = Simulation(arrivals, limits, lambda size: 0.1 * size).run()
    full = [
        image
        for image, (end, _) in record.ends.items()
        if end == "full" and arrivals[image].priority is Priority.INTERACTIVE
    ]
    for image in full[:5]:
        insisting = list(arrivals)
        insisting[image] = replace(arrivals[image], insists=True)
        end, at = Simulation(insisting, limits, lambda size: 0.1 * size).run().ends[image]
        left = arrivals[image].deadline - arrivals[image].at
        assert end != "done" or at > arrivals[image].at + 0.5 * left


def test_another_client_s_flood_leaves_an_upload_its_share() -> None:
    """Behind so much of one's own, it would be refused."""
    flood = [Arrival(0.0, client="flood", deadline=4.0) for _ in range(240)]
    limits = replace(LIMITS, spare=0.0)
    own = Arrival(0.1, client="flood", deadline=2.0)
    other = Arrival(0.1, client="other", deadline=1.0)
    first = Arrival(0.1, client="flood", deadline=3.9)
    record = Simulation([*flood, own, other, first], limits, seconds).run()
    assert record.ends[240][0] == "done"  # due before the flood
    assert record.ends[241][0] == "done"
    late = Arrival(0.1, client="flood", deadline=4.0)
    many = [Arrival(0.0, client="flood", deadline=4.0) for _ in range(400)]
    ends = Simulation([*many, late], limits, seconds).run().ends
    assert ends[400] == ("full", 0.1)


def test_bulk_work_waits_behind_uploads_and_is_refused_for_it() -> None:
    uploads = [Arrival(0.0, deadline=math.inf) for _ in range(160)]
    bulk = [Arrival(0.01, priority=Priority.BULK, deadline=due) for due in (1.0, 4.0)]
    record = Simulation([*uploads, *bulk], LIMITS, seconds).run()
    assert [record.ends[image][0] for image in (160, 161)] == ["full", "done"]
    bulk = [Arrival(0.0, priority=Priority.BULK) for _ in range(160)]
    record = Simulation([*bulk, Arrival(0.01, deadline=0.5)], LIMITS, seconds).run()
    assert record.ends[160][0] == "done"


def test_an_estimate_that_is_too_high_does_not_keep_itself_up() -> None:
    times = BatchTimes({size: seconds(size) for size in range(1, 9)})
    for _ in range(30):
        times.observe(8, 60.0)
    arrivals = load(0.9, lasts=60.0, budget=1.0)
    record = Simulation(arrivals, LIMITS, seconds, times).run()
    later = [i for i, arrival in enumerate(arrivals) if arrival.at > 30.0]
    assert len(record.done().intersection(later)) > 0.98 * len(later)
