"""Rates are measured in turns, and large batches only where they are not too slow."""

from collections.abc import Sequence

from inference.backends.measurement import Stopwatch, takes_at_most
from inference.backends.tower import Picture


class Machine:
    """A clock that towers move on; it can slow down."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pace = 1.0
        self.calls: list[tuple[str, int]] = []

    def clock(self) -> float:
        return self.now


class Tower:
    def __init__(self, machine: Machine, name: str, fixed: float, each: float) -> None:
        self.machine, self.name, self.fixed, self.each = machine, name, fixed, each

    def encode(self, pictures: Sequence[Picture]) -> None:
        self.machine.calls.append((self.name, len(pictures)))
        self.machine.now += (self.fixed + self.each * len(pictures)) * self.machine.pace


def test_rates_of_a_batch() -> None:
    machine = Machine()
    tower = Tower(machine, "a", 0.1, 0.1)
    stopwatch = Stopwatch(tower, [b""], machine.clock)
    (rates,) = stopwatch.rates([tower], rounds=3)
    assert {size: round(rate, 6) for size, rate in rates.items()} == {1: 5.0, 4: 8.0}
    assert stopwatch.sizes == (1, 4), "16 would take over two seconds"


def test_one_picture_is_always_measured() -> None:
    machine = Machine()
    assert Stopwatch(Tower(machine, "a", 9, 9), [b""], machine.clock).sizes == (1,)


def test_towers_take_turns() -> None:
    machine = Machine()
    towers = [Tower(machine, name, 0, 0.01) for name in "ab"]
    stopwatch = Stopwatch(towers[0], [b""], machine.clock)
    machine.calls.clear()
    stopwatch.rates(towers, rounds=3)
    names = [name for name, size in machine.calls if size == 16]
    assert "".join(names[2:]) == "ababab"


def test_a_first_look_takes_the_better_batch() -> None:
    machine = Machine()
    tower = Tower(machine, "a", 0.8, 0.1)
    assert takes_at_most(0.21, tower, b"", machine.clock)
    assert not takes_at_most(0.19, tower, b"", machine.clock)


def test_a_first_look_is_patient_with_a_busy_machine() -> None:
    machine = Machine()

    class Freed(Tower):
        def encode(self, pictures: Sequence[Picture]) -> None:
            super().encode(pictures)
            self.each = 0.001 if len(machine.calls) > 5 else self.each

    assert takes_at_most(0.01, Freed(machine, "a", 0, 0.02), b"", machine.clock)
