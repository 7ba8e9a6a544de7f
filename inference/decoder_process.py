"""One decoder process as the service sees it: a socket, and a process that may end at any time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

from inference.decoder.protocol import MAX_PACKET_BYTES, WorkerSettings
from inference.shared_file import SharedFile

WORKER_MODULE = "inference.decoder.worker"
_START_SECONDS = 60.0
# One thread for one file, and nothing else of the service's environment. The C library uses the
# memory of one file again for the next: half of the time of a WebP went into fresh pages. 32 MiB is
# the most that it takes for the first of these; the worker gives the memory back when it is idle.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024),
}
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG")


class DecoderStartError(Exception):
    """A decoder process does not start; the message is one line."""


class NeverReceivedError(Exception):
    """The process ended before it took the packet from its socket."""


class EndedError(Exception):
    """The process ended instead of answering."""

    def __init__(self, code: int) -> None:
        """`code` is that of subprocess: of a signal, its negative number."""
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"code {code}"
        super().__init__(f"a decoder process ended with {name}")
        self.code = code


class DecoderProcess:
    """A process that answers one packet at a time."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Starts it. Raises OSError."""
        self._views = SharedFile("views")
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        descriptor = other.fileno()
        command = [sys.executable, "-m", WORKER_MODULE, str(descriptor), settings.to_json()]
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                env=inherited | _ENVIRONMENT,
            )
        except OSError:
            self._socket.close()
            self._views.close()
            raise
        finally:
            other.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._process.poll() is None

    async def ready(self) -> str:
        """Waits until it can decode; says why it could not filter its system calls, if so.

        Raises DecoderStartError.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                return str(json.loads(await self.answer()))
        except TimeoutError:
            raise DecoderStartError(f"no decoder process within {_START_SECONDS:g} s") from None
        except (EndedError, NeverReceivedError) as error:
            raise DecoderStartError(f"{error} before it was ready") from error

    @property
    def views(self) -> SharedFile:
        """Where it writes what it makes of a file, over what is there from the last one."""
        return self._views

    def give_views(self) -> SharedFile:
        """Lets the caller have that file; another one is used from now on. Raises OSError."""
        given, self._views = self._views, SharedFile("views")
        return given

    def send(self, packet: bytes, file: SharedFile) -> None:
        """Hands it a packet and a file. Raises NeverReceivedError."""
        try:
            socket.send_fds(self._socket, [packet], [file.fileno(), self._views.fileno()])
        except OSError as error:
            raise NeverReceivedError from error

    async def answer(self) -> bytes:
        """The packet that it answers with. Raises NeverReceivedError or EndedError."""
        try:
            packet = await asyncio.get_running_loop().sock_recv(self._socket, MAX_PACKET_BYTES)
        except ConnectionError as error:
            # Linux says so when an end is closed with packets in it that nobody has read.
            raise NeverReceivedError from error
        if not packet:
            raise EndedError(await asyncio.to_thread(self._process.wait))
        return packet

    async def kill(self) -> None:
        """Ends it and forgets it."""
        self._process.kill()
        self._socket.close()
        self._views.close()
        await asyncio.to_thread(self._process.wait)
