"""A decoder process: `python -m inference.decoder.worker DESCRIPTOR SETTINGS`.

The service starts it with one end of a socket, and it says there that it is ready. Then it decodes
one file after the other until the other end is closed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import random
import signal
import socket
import sys
from collections.abc import Callable

import av
from PIL import Image

from inference.decoder.decode import Decoder
from inference.decoder.failures import what_is_wrong
from inference.decoder.media import DecodedMedia, Request
from inference.decoder.protocol import (
    MAX_PACKET_BYTES,
    WorkerSettings,
    pack_error,
    pack_media,
    unpack_request,
)
from inference.decoder.sandbox import Watchdog, filter_system_calls, limit_resources
from inference.errors import ScoringError

_DESCRIPTORS = 2  # that come with a request
# What the C library may keep of the memory of a file for the next one, and for how long.
_KEPT_BYTES = 128 * 1024 * 1024
_KEPT_SECONDS = 1.0

DecodeFunction = Callable[[bytes, Request], DecodedMedia]
"""Decodes a file. Raises ScoringError."""


def main(arguments: list[str], decode: DecodeFunction | None = None) -> int:
    """Serves until the service closes the socket. Tests give a `decode` of their own."""
    # Ctrl-C in a terminal and systemd's SIGTERM are for the service, which still has files for this
    # process to decode; it goes when the service closes the socket.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(arguments[0]))
    settings = WorkerSettings.from_json(arguments[1])
    if decode is None:
        # Which frames are looked at must not be known to those who send files.
        rng = random.SystemRandom()
        decode = Decoder(settings.preprocessing, settings.limits, rng).decode
    _import_all()
    memory = _Memory()
    limit_resources(settings.memory_bytes)
    unfiltered = filter_system_calls() if settings.filtered else ""
    connection.send(json.dumps(unfiltered).encode())
    while True:
        try:
            packet, descriptors, _, _ = socket.recv_fds(connection, MAX_PACKET_BYTES, _DESCRIPTORS)
        except TimeoutError:
            memory.give_back()
            connection.settimeout(None)
            continue
        if not packet:
            return 0
        target, *source = descriptors
        request, content = unpack_request(packet)
        # The service ends a process after `seconds`; a second later, there is no service any more.
        with Watchdog(min(request.seconds, settings.seconds), settings.seconds + 1):
            reply = _answer(decode, request, content, source, target)
        connection.send(reply)
        for descriptor in descriptors:
            os.close(descriptor)
        memory.give_back(_KEPT_BYTES)
        connection.settimeout(_KEPT_SECONDS)


def _import_all() -> None:
    """Imports what Pillow and PyAV would import when they need it: then there are no files."""
    Image.init()
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _answer(
    decode: DecodeFunction, request: Request, content: bytes | None, source: list[int], target: int
) -> bytes:
    """Decodes `content`, or the file `source`. Views go to `target`; the reply is returned."""
    written = 0

    def write(header: bytes, pixels: bytes) -> None:
        nonlocal written
        size = len(header) + len(pixels)
        if os.pwritev(target, (header, pixels), written) != size:
            raise MemoryError  # over the size that a file may have
        written += size

    try:
        if content is None:
            content = os.pread(source[0], os.fstat(source[0]).st_size, 0)
        return pack_media(decode(content, request), write)
    except ScoringError as error:
        return pack_error(error)
    except Exception as error:  # of ours, or memory that is short where no decoder is at work
        return pack_error(what_is_wrong(error))


class _Memory:
    """What the C library keeps of the memory of a file.

    Keeping it makes the next file faster by half: fresh pages are dear.
    """

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/statm", os.O_RDONLY)
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU library's
        self._usual = self._resident()

    def give_back(self, over: int = 0) -> None:
        """Gives back what is kept, if it is that many bytes or more."""
        if self._trim is not None and self._resident() >= self._usual + over:
            self._trim(0)

    def _resident(self) -> int:
        return int(os.pread(self._descriptor, 100, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
