import os
import subprocess
import sys

import pytest

from benchmarks.rehearsal.process_tree import CpuSample, figures, share, tree


def test_a_tree_has_the_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = {process.pid: process for process in tree(figures(descriptors=True), os.getpid())}
    finally:
        child.communicate(b"\n")
    assert found[child.pid].parent == os.getpid()
    assert found[child.pid].descriptors >= 1
    assert found[os.getpid()].resident_bytes > 1_000_000
    assert found[os.getpid()].cpu_seconds > 0


def test_a_process_that_is_gone_has_no_tree() -> None:
    assert tree({}, 1) == []


def test_shares_are_of_the_last_seconds() -> None:
    samples = [
        CpuSample(0.0, {"a": 0.0, "b": 0.0}),
        CpuSample(1.0, {"a": 1.0, "b": 0.0}),
        CpuSample(2.0, {"a": 1.0, "b": 0.3, "new": 7.0}),
        CpuSample(3.0, {"a": 1.0, "b": 0.6, "new": 7.1}),
    ]
    assert share(samples, "b", 1.0) == pytest.approx(0.75)
    assert share(samples, "a", 1.0) == 0
    # Of a new one, what it came with is not counted.
    assert share(samples, "a", 3.0) == pytest.approx(1 / 1.6)
    assert share(samples[:1], "a", 1.0) == 0
