"""Drawn pictures as uploads: each one's bytes are its own, and what it shows is one of a few."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from inference.demo.drawing import random_scene, render

MEDIA_TYPE = "image/jpeg"
_START = b"\xff\xd8"  # of every JPEG file
_COMMENT = b"\xff\xfe"


def drawings(count: int, *, side: int = 256, quality: int = 80) -> list[bytes]:
    """JPEG files of different drawings, some kB each."""
    files = []
    for seed in range(count):
        data = io.BytesIO()
        scene = random_scene(np.random.default_rng(seed))
        render(scene, side, side).save(data, "JPEG", quality=quality)
        files.append(data.getvalue())
    return files


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The same picture in other bytes: the comment is what no decoder looks at."""
    if not jpeg.startswith(_START):
        raise ValueError("no JPEG file")
    segment = _COMMENT + (len(comment) + 2).to_bytes(2) + comment
    return _START + segment + jpeg[2:]


class Pictures:
    """The upload of a number: which drawing it shows, and its bytes."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self.files = files

    def of(self, upload: int) -> tuple[int, bytes]:
        """The drawing's number and a file of it that no other upload has."""
        picture = upload % len(self.files)
        return picture, with_comment(self.files[picture], b"upload %d" % upload)
