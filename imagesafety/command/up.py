"""`imagesafety up`: both services on one machine, watched over."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from imagesafety.command.child_end import (
    NEEDED_GB,
    WRONG_SETTING,
    ChildEnd,
    MemoryFacts,
    ending,
    memory_facts,
)
from imagesafety.command.subcommands import Commands
from imagesafety.policy_file import PolicyError, find_policy, load_policy

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds between a death and the next start
STEADY_SECONDS = 30.0  # a service that ran for so long could run as it is set
_NOT_STARTED = 1  # in place of an exit code
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "up",
        help="start the gateway and the inference service on this machine",
        description="Starts both services and starts them again if they die. Their other settings "
        "come from IMAGESAFETY_GATEWAY_… and IMAGESAFETY_INFERENCE_… variables; "
        "`python -m gateway --help` and `python -m inference --help` list them.",
    )
    parser.add_argument(
        "--policy",
        default=os.environ.get("IMAGESAFETY_GATEWAY_POLICY", "demo"),
        help="policy file, or the name of one that ships with us (demo); it names the model",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs both services until SIGTERM or SIGINT."""
    try:
        path = find_policy(options.policy)
        model = load_policy(path).model
    except PolicyError as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    listen = os.environ.get("IMAGESAFETY_INFERENCE_LISTEN", "127.0.0.1:50051")
    arguments = ("--model", model, "--listen", listen)
    inference = _Service("inference", arguments, NEEDED_GB.get(model, 0.0))
    gateway = _Service("gateway", ("--policy", str(path), "--inference", listen))
    return asyncio.run(_supervise(gateway, inference))


@dataclass(frozen=True)
class Restarts:
    """The pause before a service that has ended by itself is started again."""

    pause: float = 0.0  # seconds
    was_steady: bool = False

    def after(self, code: int, seconds: float) -> Restarts | None:
        """The next state, after it ran for `seconds` and ended with `code`; None: not again.

        Settings that worked once still do: then code 2 is about a port or a disk, for a while.
        """
        was_steady = self.was_steady or seconds > STEADY_SECONDS
        if code == WRONG_SETTING and not was_steady:
            return None
        longer = 0.0 if seconds > STEADY_SECONDS else 2 * self.pause
        return Restarts(min(max(FIRST_PAUSE, longer), LONGEST_PAUSE), was_steady)


class _Service:
    """A service as a child process, started again when it dies."""

    def __init__(self, name: str, arguments: Sequence[str], needed_gb: float = 0.0) -> None:
        self.name = name
        self._command = (sys.executable, "-m", name, *arguments)
        self._needed_gb = needed_gb
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._stopping = False

    async def run(self) -> int:
        """Keeps the service running; returns its exit code when it was stopped, or can't run."""
        restarts, code = Restarts(), 0
        while not self._stopping:
            started, before = time.monotonic(), memory_facts()
            end = await self._run_once()
            code = end.code
            again = restarts.after(code, time.monotonic() - started)
            if self._stopping:
                return code
            self._report(end, before, again)
            if again is None:
                return code
            restarts = again
            await asyncio.sleep(restarts.pause)
        return code

    async def stop(self) -> None:
        """Asks the service to finish what it does and end."""
        self._stopping = True
        if self._process is not None and not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
            await self._ended.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own modules
            self._command, preexec_fn=_end_with_parent, start_new_session=True
        )

    async def _run_once(self) -> ChildEnd:
        try:
            self._process = process = self._start()
            self._ended.clear()
            # Not asyncio's process, which does not report the memory that the child had.
            _, status, usage = await asyncio.to_thread(os.wait4, process.pid, 0)
        except (OSError, subprocess.SubprocessError) as error:  # no process or memory is left
            print(f"imagesafety: {self.name} can't be started: {error}", file=sys.stderr)
            self._ended.set()
            return ChildEnd(_NOT_STARTED)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()
        unit = 1 if sys.platform == "darwin" else 1024
        return ChildEnd(process.returncode, usage.ru_maxrss * unit)

    def _report(self, end: ChildEnd, before: MemoryFacts, again: Restarts | None) -> None:
        why = ending(self.name, end, before, memory_facts(), self._needed_gb)
        then = "" if again is None else f"; starting it again in {again.pause:g} s"
        print(f"imagesafety: {why}{then}", file=sys.stderr)


def _end_with_parent() -> None:
    """Has the kernel end the child when its parent dies, so that no port stays taken."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _supervise(gateway: _Service, inference: _Service) -> int:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, asked.set)
    services = [asyncio.create_task(service.run()) for service in (inference, gateway)]
    asking = asyncio.create_task(asked.wait())
    await asyncio.wait((*services, asking), return_when=asyncio.FIRST_COMPLETED)
    asking.cancel()
    # A service that ended by itself can't run as it is set, and has said why.
    codes = [task.result() for task in services if task.done()]
    await gateway.stop()  # first: it still needs scores for the uploads that it finishes
    await inference.stop()
    for task in services:
        task.cancel()
    await asyncio.gather(*services, return_exceptions=True)
    return codes[0] if codes else 0
