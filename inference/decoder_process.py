"""One decoder process as the service sees it: a socket, and a process that may end at any time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from inference.decoder.media import DecodedMedia, Facts, Request
from inference.decoder.protocol import (
    MAX_PACKET_BYTES,
    BrokenReplyError,
    StoredViews,
    WorkerSettings,
    pack_request,
    unpack_reply,
)
from inference.errors import Reason, ScoringError
from inference.shared_file import SharedFile

WORKER_MODULE = "inference.decoder.worker"
_START_SECONDS = 60.0
_TIMEOUT_CODES = frozenset({-signal.SIGPROF, -signal.SIGALRM})
# Of processor time: what needs as much is at fault if there is no more time for it.
_HEAVY_SECONDS = 1.0
# Up to there the views of a file are copied, so that the memory that they came in is used again.
_COPIED_BYTES = 1024 * 1024
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

log = logging.getLogger("inference")


class DecoderStartError(Exception):
    """A decoder process does not start; the message is one line."""


class NeverReceivedError(Exception):
    """The process ended before it took the packet from its socket."""


class KilledError(Exception):
    """Something outside has killed the process: no file can do that."""


class EndedError(Exception):
    """The process ended instead of answering."""

    def __init__(self, code: int) -> None:
        """`code` is that of subprocess: of a signal, its negative number."""
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"code {code}"
        super().__init__(f"a decoder process ended with {name}")
        self.code = code


@dataclass(frozen=True)
class DecodedFile:
    """The views of a file, and the memory that they are in, if they are not copied."""

    media: DecodedMedia
    stored: SharedFile | None

    def close(self) -> None:
        """Lets go of the memory: `media.pixels` can't be read any more."""
        if self.stored is not None:
            self.stored.close()


class DecoderProcess:
    """A process that decodes one file at a time."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Starts it. Raises OSError."""
        self._settings = settings
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        descriptor = other.fileno()
        command = [sys.executable, "-m", WORKER_MODULE, str(descriptor), settings.to_json()]
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            self._views = SharedFile("views")
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                env=inherited | _ENVIRONMENT,
            )
        except OSError:
            self._socket.close()
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
                return str(json.loads(await self._answer()))
        except TimeoutError:
            raise DecoderStartError(f"no decoder process within {_START_SECONDS:g} s") from None
        except (EndedError, NeverReceivedError) as error:
            raise DecoderStartError(f"{error} before it was ready") from error

    def hand_over(self, file: SharedFile, request: Request) -> None:
        """Gives it a file to decode. Raises NeverReceivedError."""
        descriptors = [self._views.fileno()]
        content = file.kept
        if content is None:
            descriptors.append(file.fileno())
        try:
            socket.send_fds(self._socket, pack_request(request, content), descriptors)
        except OSError as error:
            raise NeverReceivedError from error

    async def decoded(self, request: Request, patience: float) -> DecodedFile:
        """What it has made of the file, within `patience` seconds.

        Raises ScoringError, NeverReceivedError or KilledError.
        """
        begun = self._processor_seconds()
        try:
            async with asyncio.timeout(patience):
                reply = unpack_reply(await self._answer())
            if reply.error is not None:
                raise reply.error
            if reply.facts is None or not (reply.views or request.closer):
                raise BrokenReplyError("a reply without views")
            if bool(reply.hashes) != request.hashes:
                raise BrokenReplyError("hashes that nobody asked for, or none")
            return self._take_views(reply.facts, reply.views, reply.hashes)
        except TimeoutError:
            used = self._processor_seconds() - begun
            log.warning("a decoder process was at one file for %g s, and is ended", patience)
            if patience < self._settings.seconds and used < _HEAVY_SECONDS:
                # It did not get to work on the file, for which the file can do nothing.
                message = "the deadline came near while the image was decoded"
                raise ScoringError(Reason.DEADLINE_EXCEEDED, message) from None
            message = f"decoding took over {patience:.3g} s"
            raise ScoringError(Reason.DECODER_TIMEOUT, message) from None
        except EndedError as error:
            log.warning("%s while it decoded a file", error)
            if error.code == -signal.SIGKILL:
                raise KilledError from error
            if error.code in _TIMEOUT_CODES:
                raise ScoringError(Reason.DECODER_TIMEOUT, "decoding takes too long") from error
            raise ScoringError(Reason.DECODER_CRASHED, "the decoder died of this file") from error
        except BrokenReplyError as error:
            log.warning("a decoder process gave %s, and is ended", error)
            raise ScoringError(Reason.DECODER_CRASHED, "the decoder broke on this file") from error

    def _take_views(self, facts: Facts, count: int, hash_count: int) -> DecodedFile:
        """Copies few views, so that their memory is used again, and takes that of many away."""
        view_bytes = self._settings.preprocessing.view_bytes
        pixels = StoredViews(self._views.read, count, view_bytes)
        views = tuple(pixels.view(index) for index in range(count))
        hashes = pixels.hashes(hash_count)
        if hashes and {one.frame_index for one in hashes} != {one.frame_index for one in views}:
            raise BrokenReplyError("hashes of other frames than the views")
        if count * view_bytes <= _COPIED_BYTES:
            return DecodedFile(DecodedMedia(facts, views, tuple(pixels), hashes), None)
        taken, self._views = self._views, SharedFile("views")
        return DecodedFile(DecodedMedia(facts, views, pixels, hashes), taken)

    async def _answer(self) -> bytes:
        """The packet that it answers with. Raises NeverReceivedError or EndedError."""
        try:
            packet = await asyncio.get_running_loop().sock_recv(self._socket, MAX_PACKET_BYTES)
        except ConnectionError as error:
            # Linux says so when an end is closed with packets in it that nobody has read.
            raise NeverReceivedError from error
        if not packet:
            raise EndedError(await asyncio.to_thread(self._process.wait))
        return packet

    def _processor_seconds(self) -> float:
        """The processor time that it has used so far."""
        with contextlib.suppress(OSError):  # it has ended
            # What the C library's clock_getcpuclockid makes of a process id on Linux.
            return time.clock_gettime((~self._process.pid << 3) | 2)
        return 0.0

    async def kill(self) -> None:
        """Ends it and forgets it. Doing it again does nothing."""
        self._process.kill()
        self._socket.close()
        self._views.close()
        await asyncio.to_thread(self._process.wait)
