"""The line that `imagesafety up` prints of a child that ended, and the memory that it names."""

import os
import re
from pathlib import Path

import pytest

from imagesafety.command.child_end import (
    NEEDED_GB,
    ChildEnd,
    MemoryFacts,
    ending,
    memory_facts,
)

MB = 1024 * 1024
GB = 1024 * MB
MACHINE = MemoryFacts(machine_bytes=8 * GB)
LIMITED = MemoryFacts(machine_bytes=8 * GB, limit_bytes=700 * MB)
PLENTY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("kills", "said"),
    [
        ((None, None), "was killed (SIGKILL), probably for want of memory: "),
        ((None, 1), "was killed (SIGKILL), probably for want of memory: "),
        ((0, 1), "was killed for want of memory: "),
        ((7, 9), "was killed for want of memory: "),
        ((0, 0), "was killed (SIGKILL) from outside, not by the kernel for want of memory: "),
        ((3, 3), "was killed (SIGKILL) from outside, not by the kernel for want of memory: "),
    ],
)
def test_the_kernels_count_makes_it_certain(
    kills: tuple[int | None, int | None], said: str
) -> None:
    before, after = (MemoryFacts(8 * GB, 700 * MB, count) for count in kills)
    line = ending("inference", ChildEnd(-9, 690 * MB), before, after, 5.1)
    assert line == (
        f"inference {said}the limit is 700 MB, it had used up to 690 MB, "
        "this model needs about 5.1 GB"
    )


@pytest.mark.parametrize(
    ("memory", "used", "needed", "said"),
    [
        (LIMITED, 690 * MB, 0.8, "the limit is 700 MB, it had used up to 690 MB, this"),
        (LIMITED, 690 * MB, 0, "the limit is 700 MB, it had used up to 690 MB"),
        (LIMITED, 0, 0, "the limit is 700 MB"),
        (MACHINE, 7 * GB, 0, "the machine has 8.0 GB, it had used up to 7.0 GB"),
        (MACHINE, 0, 0.8, "the machine has 8.0 GB, this model needs about 0.8 GB"),
    ],
)
def test_only_what_is_known_is_named(
    memory: MemoryFacts, used: int, needed: float, said: str
) -> None:
    line = ending("inference", ChildEnd(-9, used), memory, memory, needed)
    assert line.partition(": ")[2].startswith(said)
    assert ("needs about" in line) == bool(needed)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "gateway ended without an error, as it does when something sends it SIGTERM"),
        (1, "gateway ended with an error (code 1), and has said above what it knows"),
        (2, "gateway can't run as it is set (code 2), and has said why above"),
        (137, "gateway ended with an error (code 137), and has said above what it knows"),
        (-15, "gateway was asked to end by something else than `imagesafety up` (SIGTERM)"),
        (-2, "gateway was asked to end by something else than `imagesafety up` (SIGINT)"),
        (-1, "gateway was asked to end by something else than `imagesafety up` (SIGHUP)"),
        (-6, "gateway gave up (SIGABRT), and has said above what it knows"),
        (-11, "gateway crashed (SIGSEGV): that is a fault of ours, of a library or of the machine"),
        (-7, "gateway crashed (SIGBUS): that is a fault of ours, of a library or of the machine"),
        (-4, "gateway crashed (SIGILL): a library uses instructions that this processor lacks"),
        (-10, "gateway was ended by SIGUSR1"),
        (-40, "gateway was ended by signal 40"),
    ],
)
def test_other_ends(code: int, said: str) -> None:
    assert ending("gateway", ChildEnd(code, 100 * MB), LIMITED, LIMITED, 5.1) == said


def tree(folder: Path, own: str, files: dict[str, str]) -> MemoryFacts:
    """Facts read where /sys/fs/cgroup has these files, and /proc/self/cgroup that text."""
    for name, content in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "own").write_text(own)
    return memory_facts(folder / "cgroup", folder / "own")


PROCESSES = f"1\n{os.getpid()}\n"
VERSION_1 = "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/system.slice\n"
NO_LIMIT = "9223372036854771712\n"


def test_a_container_of_version_2_sees_its_own_group_as_the_top(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{700 * MB}\n",
        "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
        "cgroup.procs": PROCESSES,
    }
    assert tree(tmp_path, "0::/\n", files) == MemoryFacts(PLENTY, 700 * MB, 2)


def test_a_group_of_version_2_is_bound_by_those_around_it(tmp_path: Path) -> None:
    files = {
        "a.slice/memory.max": f"{300 * MB}\n",
        "a.slice/memory.events": "oom_kill 9\n",
        "a.slice/b.service/memory.max": "max\n",
        "a.slice/b.service/memory.events": "oom_kill 1\n",
        "a.slice/b.service/cgroup.procs": PROCESSES,
    }
    own = "0::/a.slice/b.service\n"
    assert tree(tmp_path, own, files) == MemoryFacts(PLENTY, 300 * MB, 1)


@pytest.mark.parametrize("inner", ["", "docker/ab/"], ids=["as the top", "by the host's path"])
def test_a_container_of_version_1(inner: str, tmp_path: Path) -> None:
    files = {
        f"memory/{inner}memory.limit_in_bytes": f"{700 * MB}\n",
        f"memory/{inner}memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        f"memory/{inner}cgroup.procs": PROCESSES,
    }
    assert tree(tmp_path, VERSION_1, files) == MemoryFacts(PLENTY, 700 * MB, 4)


def test_the_number_that_version_1_has_for_no_limit_is_none(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": NO_LIMIT}
    assert tree(tmp_path, VERSION_1, files) == MemoryFacts(PLENTY)


def test_a_limit_over_the_machines_memory_is_none(tmp_path: Path) -> None:
    assert tree(tmp_path, "0::/\n", {"memory.max": f"{2 * PLENTY}\n"}) == MemoryFacts(PLENTY)


def test_the_count_of_a_group_of_others_makes_nothing_certain(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{700 * MB}\n",
        "memory.events": "oom_kill 2\n",
        "cgroup.procs": "1\n",
    }
    assert tree(tmp_path, "0::/\n", files) == MemoryFacts(PLENTY, 700 * MB)


@pytest.mark.parametrize("own", ["", "no cgroup\n", "0::\n", "::::\n", "0::/../../etc\n", "\0"])
@pytest.mark.parametrize("content", ["", "max\n", "-1\n", "many\n", "\0"])
def test_what_can_not_be_read_is_no_limit(own: str, content: str, tmp_path: Path) -> None:
    files = {"memory.max": content, "memory.events": content, "cgroup.procs": PROCESSES}
    assert tree(tmp_path, own, files) == MemoryFacts(PLENTY)


def test_without_control_groups_there_is_the_machine(tmp_path: Path) -> None:
    assert memory_facts(tmp_path / "none", tmp_path / "nor this") == MemoryFacts(PLENTY)


def test_this_machine_can_be_read() -> None:
    facts = memory_facts()
    assert facts.machine_bytes == PLENTY
    assert facts.limit_bytes is None or 0 < facts.limit_bytes < PLENTY


def test_what_models_need_is_what_the_documents_say() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|.* \| (\d+\.\d) GB \|$", text, re.MULTILINE)
    rows += re.findall(r"The `(demo)` model takes (\d+\.\d) GB", text)
    assert {name: float(size) for name, size in rows} == NEEDED_GB
