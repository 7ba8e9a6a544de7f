"""The reason for the end of a child process, in one line: by exit code and memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WRONG_SETTING = 2  # the exit code of a service that can't start as it is set

NEEDED_GB = {
    "demo": 0.8,
    "ViT-B-32/openai": 2.7,
    "ViT-B-32-SigLIP2-256/webli": 2.5,
    "ViT-B-16-SigLIP2-256/webli": 2.6,
    "ViT-L-14/openai": 5.1,
}
"""About what inference needs beside its decoders, by model, as docs/models.md has it."""

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_MIB = 1024 * 1024
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP}
_REQUESTS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


@dataclass(frozen=True)
class ChildEnd:
    """The end of a child: its code, negative for a signal, and the most memory that it had.

    `most_bytes` is resident memory, 0 where that is not known.
    """

    code: int
    most_bytes: int = 0


@dataclass(frozen=True)
class MemoryFacts:
    """The memory that a child could have, and signs of its want.

    `limit_bytes` is that of the control group, None without one. `kills` is how many processes of
    the group the kernel has killed for want of memory, None where it does not report that.
    """

    machine_bytes: int
    limit_bytes: int | None = None
    kills: int | None = None


def ending(
    name: str, end: ChildEnd, before: MemoryFacts, after: MemoryFacts, needed_gb: float = 0.0
) -> str:
    """Say why the child `name` ended, between `before` and `after`.

    `needed_gb` is about what it needs, 0 where that is not known.
    """
    if end.code == -signal.SIGKILL:
        return f"{name} was {_killed(before, after)}: {_memory(end, after, needed_gb)}"
    if end.code < 0:
        return f"{name} {_signalled(-end.code)}"
    match end.code:
        case 0:
            return f"{name} ended without an error, as it does when something sends it SIGTERM"
        case code if code == WRONG_SETTING:
            return f"{name} can't run as it is set (code {code}), and has said why above"
        case code:
            return f"{name} ended with an error (code {code}), and has said above what it knows"


def memory_facts(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> MemoryFacts:
    """Read this process's control group, of version 1 or 2; children are in the same one."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits: list[int] = [machine]
    kills: int | None = None
    for group in _groups(cgroups, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(group / name).strip()
            if text.isdecimal():  # else "max"
                limits.append(int(text))
        # Of a group further out, the count has others in it, or lacks ours.
        if str(os.getpid()) in _text(group / "cgroup.procs").split():
            kills = _oom_kills(group)
    limit = min(limits)  # without a limit, version 1 has a number larger than any memory
    return MemoryFacts(machine, limit if limit < machine else None, kills)


def _killed(before: MemoryFacts, after: MemoryFacts) -> str:
    if before.kills is None or after.kills is None:
        return "killed (SIGKILL), probably for want of memory"
    if after.kills > before.kills:
        return "killed for want of memory"
    return "killed (SIGKILL) from outside, not by the kernel for want of memory"


def _memory(end: ChildEnd, memory: MemoryFacts, needed_gb: float) -> str:
    """The memory that there was, was used, and is needed."""
    if memory.limit_bytes is None:
        parts = [f"the machine has {_size(memory.machine_bytes)}"]
    else:
        parts = [f"the limit is {_size(memory.limit_bytes)}"]
    # Pages of files that other containers have read too are in its peak, and not in its limit.
    if 0 < end.most_bytes < (memory.limit_bytes or memory.machine_bytes):
        parts.append(f"it had used up to {_size(end.most_bytes)}")
    if needed_gb:
        parts.append(f"this model needs about {needed_gb} GB")
    return ", ".join(parts)


def _signalled(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        name = f"signal {number}"
    if number in _REQUESTS:
        return f"was asked to end by something else than `imagesafety up` ({name})"
    if number in _CRASHES:
        return f"crashed ({name}): that is a fault of ours, of a library or of the machine"
    match number:
        case signal.SIGABRT:
            return f"gave up ({name}), and has said above what it knows"
        case signal.SIGILL:
            return f"crashed ({name}): a library uses instructions that this processor lacks"
        case _:
            return f"was ended by {name}"


def _size(count: int) -> str:
    return f"{count / _MIB:.0f} MB" if count < 1024 * _MIB else f"{count / _MIB / 1024:.1f} GB"


def _groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's memory groups, each before those that it is in.

    A container often sees its own group as the top, while /proc still has the host's path for it.
    """
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        for top in (cgroups / "memory", cgroups / "unified") if controllers else (cgroups,):
            inner = Path(os.path.normpath(f"/{path}"))
            for folder in (inner, *inner.parents):
                yield top / str(folder).lstrip("/")


def _oom_kills(group: Path) -> int | None:
    """The number of a group's processes that were killed for want of memory."""
    for name in ("memory.events", "memory.oom_control"):
        for line in _text(group / name).splitlines():
            match line.split():
                case ["oom_kill", count] if count.isdecimal():
                    return int(count)
    return None


def _text(path: Path) -> str:
    """The content of a file; empty where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
