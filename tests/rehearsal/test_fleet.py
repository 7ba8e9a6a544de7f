"""What the processes of a rehearsal may use of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from benchmarks.rehearsal.fleet import cores, leaving

_SHOW = "import os; print(sorted(os.sched_getaffinity(0)))"


@pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")
def test_a_core_is_left_to_others_by_every_thread_and_child_until_the_block_ends() -> None:
    before = cores()
    others = before[1:]
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with leaving(before[0]):
            assert cores() == others
            assert sorted(os.sched_getaffinity(thread.native_id or 0)) == others
            shown = subprocess.run([sys.executable, "-c", _SHOW], capture_output=True, check=True)
            assert shown.stdout.decode().strip() == str(others)
        assert cores() == before
        assert sorted(os.sched_getaffinity(thread.native_id or 0)) == before
    finally:
        over.set()
        thread.join()


def test_without_a_core_to_leave_all_are_used() -> None:
    before = cores()
    with leaving(None):
        assert cores() == before
