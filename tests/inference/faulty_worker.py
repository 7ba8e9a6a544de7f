"""A decoder process that does what a file tells it to: `fault:` and the name of a fault."""

import ctypes
import json
import os
import random
import sys
import time
from collections.abc import Callable

from inference.decoder import worker
from inference.decoder.decode import Decoder
from inference.decoder.media import (
    Background,
    DecodedMedia,
    Facts,
    PerceptualHash,
    Region,
    Request,
    View,
)
from inference.decoder.protocol import WorkerSettings, pack_media

LIES = {
    "lie": ["__import__('os')", 1],
    "views": [["image/png", 1, 1, 1, 1, 0, ""], 1_000_000, 0],
    "none": [["image/png", 1, 1, 1, 1, 0, ""], 0, 0],
}
ONE = PerceptualHash(0, Background.NONE, bytes(32), 100)
HASHES = {
    "good-hash": (ONE,),
    "no-hash": (),
    "two-hashes": (ONE, ONE),  # of one view
    "hash-of-another-frame": (PerceptualHash(7, Background.NONE, bytes(32), 100),),
    "hash-of-quality-101": (PerceptualHash(0, Background.NONE, bytes(32), 101),),
    "hash-on-green": (PerceptualHash(0, 3, bytes(32), 100),),  # type: ignore[arg-type]
}


def decode(data: bytes, request: Request) -> DecodedMedia:
    settings = WorkerSettings.from_json(sys.argv[2])
    match data.partition(b"fault:")[2].decode(errors="replace"):
        case "crash":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(3600)
        case "memory":
            hoard = [bytearray(64 * 1024 * 1024) for _ in range(1000)]
            del hoard
        case "raise":
            raise RuntimeError("a decoder's\nmistake")
        case fault if fault in LIES:
            return DecodedMedia(Facts(fault, 1, 1, 1, 1, 0.0, ""), (), ())
        case fault if fault in HASHES:
            view = View(0, 0.0, Region(0, 0, 1, 1), Background.NONE)
            pixels = bytes(settings.preprocessing.view_bytes)
            facts = Facts("image/png", 1, 1, 1, 1, 0.0, "")
            return DecodedMedia(facts, (view,), (pixels,), HASHES[fault])
    rng = random.Random(0)
    return Decoder(settings.preprocessing, settings.limits, rng).decode(data, request)


def pack(media: DecodedMedia, write: Callable[[bytes, bytes], None]) -> bytes:
    lie = LIES.get(media.facts.media_type)
    return pack_media(media, write) if lie is None else json.dumps(lie).encode()


if __name__ == "__main__":
    worker.pack_media = pack  # type: ignore[attr-defined]
    sys.exit(worker.main(sys.argv[1:], decode))
