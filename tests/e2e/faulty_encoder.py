"""The inference service with an encoder that fails, or is slow, as files in a folder say.

The folder is the first argument. It may have the files `broken` (every batch raises), `slow`
(seconds for a picture) and `stuck` (a batch does not come back while it is there); the service adds
a byte to `passes` for every picture that is encoded.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference import device_health, server
from inference.backends.tower import Picture
from inference.encoder import Embeddings, Encoder
from inference.idle_measuring import Pauses
from inference.settings import Settings

RAISES = (255, 0, 255)  # plain pictures of these colours
NAN = (0, 255, 255)


class FaultyEncoder:
    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder, self._folder = encoder, folder
        self.description, self.concurrency = encoder.description, 1
        self.encode_texts, self.close = encoder.encode_texts, encoder.close

    def encode_images(self, pictures: Sequence[Picture]) -> Embeddings:
        with (self._folder / "passes").open("ab") as passes:
            passes.write(bytes(len(pictures)))
        slow = self._folder / "slow"
        if slow.exists():
            time.sleep(float(slow.read_text()) * len(pictures))
        while (self._folder / "stuck").exists():
            time.sleep(0.02)
        shows = [tuple(picture[:3]) for picture in pictures]
        if RAISES in shows or (self._folder / "broken").exists():
            raise RuntimeError("the device has no memory")
        embeddings = np.array(self._encoder.encode_images(pictures))
        embeddings[[shown == NAN for shown in shows], 0] = np.nan
        return embeddings


def main() -> int:
    folder = Path(sys.argv[1])
    load = server.load_encoder

    def load_encoder(settings: Settings) -> Encoder:
        return FaultyEncoder(load(settings), folder)

    server.load_encoder = load_encoder
    server._PAUSES = Pauses(quiet=3600.0)  # tests count passes
    device_health._SECONDS = 0.05
    return server.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
