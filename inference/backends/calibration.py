"""The pictures on which backends are compared and int8 ranges are calibrated."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from inference.backends.machine import file_digest
from inference.backends.tower import PictureSize
from inference.demo import drawing
from inference.model_source import ModelError

COUNT = 24
_SEED = 4
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

log = logging.getLogger("inference")


@dataclass(frozen=True)
class Calibration:
    """Where the pictures come from: the bundled drawings, or a folder of the administrator's own.

    The folder's files are opened by Pillow in this process, outside the decoders' fence: they have
    to be trusted ones.
    """

    folder: Path | None

    def digest(self, size: PictureSize) -> str:
        """What results depend on; the pictures are not decoded for it. Raises ModelError."""
        sources = [Path(drawing.__file__)] if self.folder is None else self._files(self.folder)
        try:
            digests = [file_digest(source) for source in sources]
        except OSError as error:
            raise ModelError(f"calibration folder: {error}") from error
        text = f"{COUNT} {_SEED} {size} {digests}"
        return hashlib.sha256(text.encode()).hexdigest()

    def pictures(self, size: PictureSize) -> list[bytes]:
        """The pictures in the model's size. Raises ModelError for a folder without any."""
        if self.folder is None:
            return list(_drawings(size))
        pictures = []
        for path in self._files(self.folder):
            try:
                pictures.append(_opened(path, size))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                log.warning("calibration picture %s is left out: %s", path.name, error)
        if not pictures:
            raise ModelError(f"calibration folder {self.folder}: none of its pictures can be read")
        return pictures

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        """At most COUNT files, evenly from all in order of their names."""
        try:
            found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)
        except OSError as error:
            raise ModelError(f"calibration folder: {error}") from error
        if not found:
            raise ModelError(f"calibration folder {folder}: no JPEG, PNG or WebP files in it")
        step = max(1.0, len(found) / COUNT)
        return [found[int(index * step)] for index in range(min(COUNT, len(found)))]


def _drawings(size: PictureSize) -> Iterator[bytes]:
    rng = np.random.default_rng(_SEED)
    for _ in range(COUNT):
        scene = drawing.random_scene(rng, aspect=size.width / size.height)
        yield drawing.render(scene, size.width, size.height).tobytes()


def _opened(path: Path, size: PictureSize) -> bytes:
    with Image.open(path) as picture:
        wanted = (size.width, size.height)
        return ImageOps.fit(picture.convert("RGB"), wanted, Image.Resampling.BICUBIC).tobytes()
