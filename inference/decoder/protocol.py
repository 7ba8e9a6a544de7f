"""What the service and a decoder process say to each other.

One packet each way for a file, over a SEQPACKET socket: a request as JSON, with file descriptors of
an empty file for the views and of the file itself, and a reply as JSON. A small file's bytes stand
in the packet instead, after a zero byte. The views are records of fixed size: a header and the
pixels. Behind them stand the perceptual hashes, records of fixed size too.

A decoder that a hostile file has taken over can say what it likes, so nothing of its is unpickled
or evaluated, and a reply that is not as agreed is the end of that decoder.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from inference.decoder.media import (
    Background,
    DecodedMedia,
    Facts,
    MediaLimits,
    PerceptualHash,
    Preprocessing,
    Region,
    Request,
    View,
)
from inference.errors import Reason, ScoringError

MAX_PACKET_BYTES = 128 * 1024  # under what Linux lets through in one piece by default
MAX_CLOSER = 1000  # views of a request, which has to fit into a packet
_CONTENT = b"\0"  # never in JSON
_MAX_TEXT = 300
_LONGEST = 1e9  # seconds
_HEADER = struct.Struct("<IdIIIIB")
_HASH = struct.Struct("<IB32sB")
_BEST_QUALITY = 100
# The reasons that a file can be the cause of.
_REASONS = frozenset(
    {Reason.EMPTY_IMAGE, Reason.UNSUPPORTED_TYPE, Reason.TYPE_MISMATCH, Reason.TRUNCATED}
    | {Reason.UNDECODABLE, Reason.DECODER_OUT_OF_MEMORY, Reason.DECODER_TIMEOUT}
    | {Reason.TOO_MANY_PIXELS, Reason.TOO_MANY_FRAMES, Reason.TOO_LONG}
)


class BrokenReplyError(Exception):
    """A reply that is not as agreed."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a decoder process is told when it starts."""

    preprocessing: Preprocessing
    limits: MediaLimits
    memory_bytes: int
    seconds: float  # for one file
    filtered: bool  # whether to refuse system calls

    def to_json(self) -> str:
        """The settings as an argument of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSettings:
        """The settings in such an argument."""
        values = json.loads(text)
        preprocessing, limits = values.pop("preprocessing"), values.pop("limits")
        return cls(Preprocessing(**preprocessing), MediaLimits(**limits), **values)


@dataclass(frozen=True)
class Reply:
    """What a decoder found: facts and the numbers of views and of hashes, or an error."""

    facts: Facts | None
    views: int
    hashes: int
    error: ScoringError | None


def pack_request(request: Request, content: bytes | None) -> tuple[bytes, ...]:
    """A request as the pieces of a packet, with the file's content if that is to be in it.

    `closer` must not be longer than MAX_CLOSER, nor `content` than SMALL_BYTES.
    """
    head = json.dumps(
        [
            request.declared_type[:_MAX_TEXT],
            request.max_frames,
            request.frame_seconds,
            request.seconds,
            request.tiles,
            [
                [view.frame_index, view.frame_time, *asdict(view.region).values()]
                for view in request.closer
            ],
            request.hashes,
        ]
    ).encode()
    return (head,) if content is None else (head, _CONTENT, content)


def unpack_request(packet: bytes) -> tuple[Request, bytes | None]:
    """The request in a packet, which comes from the service, and the file's content if there."""
    head, mark, content = packet.partition(_CONTENT)
    declared_type, max_frames, frame_seconds, seconds, tiles, closer, hashes = json.loads(head)
    views = (
        View(index, shown_at, Region(*region), Background.NONE)
        for index, shown_at, *region in closer
    )
    request = Request(
        declared_type, max_frames, frame_seconds, seconds, tiles, tuple(views), hashes
    )
    return request, content if mark else None


def pack_media(media: DecodedMedia, write: Callable[[bytes, bytes], None]) -> bytes:
    """Writes views, header and pixels, and hashes of a file, and returns the reply about it."""
    for view, pixels in zip(media.views, media.pixels, strict=True):
        region = view.region
        header = _HEADER.pack(
            view.frame_index,
            view.frame_time,
            *(region.left, region.top, region.width, region.height),
            view.background,
        )
        write(header, pixels)
    for found in media.hashes:
        write(_HASH.pack(found.frame_index, found.background, found.pdq, found.quality), b"")
    facts = list(asdict(media.facts).values())
    return json.dumps([facts, len(media.views), len(media.hashes)]).encode()


def pack_error(error: ScoringError) -> bytes:
    """The reply about a file that has no views."""
    return json.dumps([error.reason.name, error.message[:_MAX_TEXT]]).encode()


def unpack_reply(packet: bytes) -> Reply:
    """The reply in a packet. Raises BrokenReplyError."""
    try:
        first, *others = json.loads(packet)
        if isinstance(first, str):
            (message,) = others
            return Reply(None, 0, 0, ScoringError(_reason(first), _text(message)))
        views, hashes = map(_count, others)
        if hashes > views:
            raise ValueError("more pictures than views of them")
        media_type, width, height, frames, total_frames, duration, partial = first
        facts = Facts(
            media_type=_text(media_type),
            width=_count(width),
            height=_count(height),
            frames=_count(frames),
            total_frames=_count(total_frames),
            duration=_seconds(duration),
            partial=_text(partial),
        )
        return Reply(facts, views, hashes, None)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise BrokenReplyError("a reply that can't be read") from error


class StoredViews(Sequence[bytes]):
    """What a decoder has written; the pixels of the views are read when they are asked for."""

    def __init__(self, read: Callable[[int, int], bytes], count: int, view_bytes: int) -> None:
        """`read` takes a number of bytes and an offset."""
        self._read = read
        self._count = count
        self._view_bytes = view_bytes
        self._record_bytes = _HEADER.size + view_bytes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if not 0 <= index < self._count:
            raise IndexError(index)
        pixels = self._read(self._view_bytes, index * self._record_bytes + _HEADER.size)
        if len(pixels) != self._view_bytes:
            raise BrokenReplyError("a view is missing")
        return pixels

    def view(self, index: int) -> View:
        """Where a view comes from. Raises BrokenReplyError."""
        header = self._read(_HEADER.size, index * self._record_bytes)
        try:
            frame_index, seconds, *region, background = _HEADER.unpack(header)
            return View(frame_index, _seconds(seconds), Region(*region), Background(background))
        except (struct.error, ValueError) as error:
            raise BrokenReplyError("a view that can't be read") from error

    def hashes(self, count: int) -> tuple[PerceptualHash, ...]:
        """The hashes behind the views. Raises BrokenReplyError."""
        start = self._count * self._record_bytes
        return tuple(
            _hash(self._read(_HASH.size, start + number * _HASH.size)) for number in range(count)
        )


def _hash(record: bytes) -> PerceptualHash:
    try:
        frame_index, background, pdq, quality = _HASH.unpack(record)
        if quality > _BEST_QUALITY:
            raise ValueError("no quality")
        return PerceptualHash(frame_index, Background(background), pdq, quality)
    except (struct.error, ValueError) as error:
        raise BrokenReplyError("a hash that can't be read") from error


def _reason(name: str) -> Reason:
    reason = Reason[name]
    if reason not in _REASONS:
        raise ValueError(name)
    return reason


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return "".join(c if c.isprintable() else " " for c in value[:_MAX_TEXT])


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**32:
        raise ValueError("no count")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= _LONGEST:
        raise ValueError("no time")
    return float(value)
