"""What a decoder process can't do any more: each test asks one, in a process of its own."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from inference.decoder.media import MediaLimits, Preprocessing
from inference.decoder.protocol import MAX_PACKET_BYTES, WorkerSettings

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024
START = """
import contextlib, ctypes, errno, os, resource, socket, subprocess, sys, threading, time
with contextlib.suppress(ImportError, RuntimeError):
    import pyseccomp
from inference.decoder.sandbox import Watchdog, filter_system_calls, limit_resources

readable = os.open(sys.executable, os.O_RDONLY)
memory = os.memfd_create("views")
connection, other_end = socket.socketpair()
stranger = socket.socket()
parent = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
"""
FILTER = "print(filter_system_calls(), flush=True)\n"
OUTCOME = """
try:
    {}
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
except (MemoryError, RuntimeError) as error:
    print(type(error).__name__)
"""
RESOURCES = f"limit_resources({64 * MIB})\n"
ROOMY = f"limit_resources({512 * MIB})\n"  # the stack of a thread is address space too


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def outcome(limits: str, attempt: str) -> str:
    """What comes of an attempt in a process with these limits."""
    process = run(limits + OUTCOME.format(attempt))
    assert process.returncode == 0, process.stderr
    *why_unfiltered, last = process.stdout.splitlines()
    if any(why_unfiltered):
        pytest.skip(why_unfiltered[0])
    return last


@pytest.mark.parametrize(
    "attempt",
    [
        "os.open('/etc/hostname', os.O_RDONLY)",
        "os.open('/tmp/from-the-sandbox', os.O_WRONLY | os.O_CREAT)",
        "os.listdir('/')",
        "os.unlink('/tmp/from-the-sandbox')",
        "os.memfd_create('more')",
        "socket.socket()",
        "socket.socketpair()",
        "stranger.connect(('127.0.0.1', 9))",
        "stranger.bind(('127.0.0.1', 0))",
        "os.fork()",
        "subprocess.run(['true'])",
        "os.execv('/bin/true', ['true'])",
        "os.kill(parent, 0)",
        "call('tgkill', parent, parent, 0)",
        "resource.prlimit(parent, resource.RLIMIT_CORE)",
        "call('ptrace', 16, parent, 0, 0)",
        "os.setpriority(os.PRIO_PROCESS, parent, 19)",
        "os.chdir('/')",
        "call('prctl', 15, b'sshd', 0, 0, 0)",
    ],
)
def test_what_decoding_does_not_need_is_refused(attempt: str) -> None:
    assert outcome(FILTER, attempt) == "EPERM"


@pytest.mark.parametrize(
    "attempt",
    [
        "assert os.pread(readable, 4, 0)",
        "assert os.pwritev(memory, (b'header', b'pixels'), 0) == 12",
        "connection.send(b'request'); assert other_end.recv(99) == b'request'",
        "os.close(os.dup(readable))",
        "thread = threading.Thread(target=time.monotonic); thread.start(); thread.join()",
        "assert len(bytearray(1024 * 1024 * 32))",
        "assert time.time() and time.process_time() and os.urandom(4)",
        "with Watchdog(10, 11): pass",
    ],
)
def test_what_decoding_needs_is_still_there(attempt: str) -> None:
    assert outcome(ROOMY, attempt) == "done"
    assert outcome(ROOMY + FILTER, attempt) == "done"


def test_memory_is_limited_to_what_is_granted() -> None:
    assert outcome(RESOURCES, f"bytearray({16 * MIB})") == "done"
    assert outcome(RESOURCES, f"bytearray({65 * MIB})") == "MemoryError"
    assert outcome(RESOURCES, f"[bytearray({MIB}) for _ in range(65)]") == "MemoryError"


def test_the_views_can_not_be_larger_than_what_is_granted() -> None:
    assert outcome(RESOURCES, f"os.pwrite(memory, b'x', {63 * MIB})") == "done"
    assert outcome(RESOURCES, f"os.pwrite(memory, b'x', {65 * MIB})") == "EFBIG"


def test_a_decoder_can_open_no_more_than_a_few_files() -> None:
    assert outcome(RESOURCES, "os.dup(readable), os.dup(readable)") == "done"
    assert outcome(RESOURCES, "[os.dup(readable) for _ in range(9)]") == "EMFILE"


def test_limits_can_not_be_raised_again() -> None:
    """But by root, who may everything."""
    attempt = "os.getuid() or os.setuid(65534); resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"
    process = run(RESOURCES + attempt)
    assert "not allowed to raise maximum limit" in process.stderr


@pytest.mark.parametrize("limits", ["", RESOURCES, RESOURCES + FILTER])
def test_a_file_that_keeps_the_processor_busy_is_the_end_of_the_process(limits: str) -> None:
    process = run(limits + "with Watchdog(1, 60):\n    while True: pass")
    assert process.returncode == -signal.SIGPROF


def test_a_file_that_waits_is_the_end_of_the_process() -> None:
    assert run("with Watchdog(60, 1): other_end.recv(1)").returncode == -signal.SIGALRM


def test_what_comes_after_a_file_has_no_end() -> None:
    process = run(
        "with Watchdog(1, 1): pass\n"
        "while time.process_time() < 2.5: pass\n"
        "with Watchdog(1, 2): pass"
    )
    assert process.returncode == 0, process.stderr


def test_a_decoder_process_is_filtered_where_a_filter_is_possible() -> None:
    assert outcome(FILTER, "os.chdir('/')") == "EPERM"
    spec, limits = Preprocessing(64, 64, "squash", "bicubic", 0), MediaLimits(10**6, 10, 10)
    settings = WorkerSettings(spec, limits, 1024 * MIB, 10, filtered=True)
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The socket is the lowest descriptor: there are no free ones below it.
    command = [sys.executable, "-m", "inference.decoder.worker", "0", settings.to_json()]
    with ours, subprocess.Popen(command, cwd=ROOT, stdin=other.fileno()) as process:
        other.close()
        why_unfiltered = json.loads(ours.recv(MAX_PACKET_BYTES))
        ours.close()
        assert process.wait() == 0
    assert why_unfiltered == ""
