"""How threads are divided among batches."""

import pytest

from inference.backends.lanes import CpuShare, Lanes


@pytest.mark.parametrize(
    ("threads", "lanes", "share", "of_lane"),
    [
        (1, 0, CpuShare(1, 1), 1),
        (2, 0, CpuShare(2, 2), 1),
        (3, 0, CpuShare(3, 3), 1),
        (6, 0, CpuShare(6, 3), 2),
        (7, 0, CpuShare(7, 4), 2),
        (16, 0, CpuShare(16, 4), 4),
        (16, 1, CpuShare(16, 1), 16),
        (2, 8, CpuShare(2, 2), 1),
    ],
)
def test_no_core_is_idle(threads: int, lanes: int, share: CpuShare, of_lane: int) -> None:
    assert CpuShare.of(threads, lanes) == share
    assert share.threads_of_lane == of_lane
    assert share.lanes * of_lane >= threads


def test_a_batch_is_alone_if_none_runs_when_it_begins() -> None:
    lanes = Lanes()
    with lanes.batch() as first, lanes.batch() as second:
        assert (first, second) == (True, False)
    with pytest.raises(MemoryError), lanes.batch():
        raise MemoryError
    with lanes.batch() as next_one:
        assert next_one
