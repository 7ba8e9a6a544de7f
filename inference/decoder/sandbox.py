"""Takes from a decoder process what it does not need: memory, time, files, network, programs.

Resource limits hold on every Linux. The filter of system calls (seccomp, by libseccomp) is there
where that library is; Debian has it in every installation.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import signal
from pathlib import Path

try:
    # Looking for the library takes files and programs, so it is done before they are refused.
    import pyseccomp
except (ImportError, RuntimeError, OSError) as error:
    pyseccomp = None
    _MISSING = f"libseccomp is missing ({error})"

_OPEN_FILES = 2  # at once, beside those that are open: the file to decode and its views
_CLONE_THREAD = 0x00010000

# What decoding needs: memory, threads, clocks, and the descriptors that it is handed.
_ALLOWED = (
    *("brk", "madvise", "mmap", "mprotect", "mremap", "munmap", "membarrier"),
    *("close", "fstat", "newfstatat", "lseek", "pread64", "pwritev", "pwritev2", "read", "readv"),
    *("write", "writev", "fcntl", "ioctl", "dup", "dup2", "dup3"),
    *("recvfrom", "recvmsg", "sendmsg", "sendto", "poll", "ppoll", "select", "pselect6"),
    *("futex", "get_robust_list", "set_robust_list", "rseq", "sched_yield", "gettid", "getpid"),
    *("sched_getaffinity", "getcpu", "getrandom", "set_tid_address", "setrlimit"),
    *("getrlimit", "getrusage", "setitimer", "alarm", "sysinfo", "uname"),
    *("clock_gettime", "clock_nanosleep", "clock_getres", "gettimeofday", "nanosleep", "time"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("exit", "exit_group", "getuid", "geteuid", "getgid", "getegid"),
)


def limit_resources(memory_bytes: int) -> None:
    """Lets the process take that much more memory than it has, and no more open files.

    The files that it is handed for one job are within what is left.
    """
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    used = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    free = (number for number in itertools.count() if number not in used)
    _limit(resource.RLIMIT_AS, in_use + memory_bytes)
    _limit(resource.RLIMIT_FSIZE, memory_bytes)  # of the views that it writes
    _limit(resource.RLIMIT_NOFILE, list(itertools.islice(free, _OPEN_FILES))[-1] + 1)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):  # when memory is short, it goes before the service does
        Path("/proc/self/oom_score_adj").write_text("800")


def filter_system_calls() -> str:
    """Refuses every system call that decoding does not need; says why that is not possible, if so.

    What is refused fails with EPERM, so that a library can say what it wanted.
    """
    if pyseccomp is None:
        return _MISSING
    try:
        rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ERRNO(errno.EPERM))
        for name in _ALLOWED:
            with contextlib.suppress(ValueError, OSError):  # not on this architecture
                rules.add_rule(pyseccomp.ALLOW, name)
        # Of itself only: other processes have limits and can be sent signals too.
        rules.add_rule(pyseccomp.ALLOW, "prlimit64", pyseccomp.Arg(0, pyseccomp.EQ, 0))
        rules.add_rule(pyseccomp.ALLOW, "tgkill", pyseccomp.Arg(0, pyseccomp.EQ, os.getpid()))
        threads = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD)
        rules.add_rule(pyseccomp.ALLOW, "clone", threads)
        # Its flags can't be seen from here; without it, the C library uses clone.
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
        rules.load()
    except (OSError, ValueError, AttributeError) as error:
        return f"the kernel refuses the filter ({error})"
    return ""


class Watchdog:
    """Ends the process when one file takes too long, whatever else goes on in it.

    For decoders that are caught in a loop: code that has taken over the process could stop these
    timers, and is ended by the service.
    """

    def __init__(self, processor_seconds: float, seconds: float) -> None:
        """How much processor time, and how much of any time, a file may take."""
        self._processor_seconds = processor_seconds
        self._seconds = seconds

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self._processor_seconds)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
