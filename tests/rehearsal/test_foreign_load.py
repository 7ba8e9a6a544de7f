import os

import pytest

from benchmarks.rehearsal.foreign_load import Moment, foreign_share, moment


def test_what_is_not_ours_is_others() -> None:
    cores = os.cpu_count() or 1
    before, after = Moment(0.0, 100.0, 10.0), Moment(10.0, 100.0 + 4.0 * cores, 10.0 + 1.0 * cores)
    assert foreign_share(before, after) == pytest.approx(0.3)


def test_processor_time_only_grows() -> None:
    before, after = moment(), moment()
    assert after.busy >= before.busy > 0
    assert after.ours >= before.ours > 0
