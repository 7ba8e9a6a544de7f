"""Hashes of what pictures look like: Meta's PDQ, by their own code in `pdqhash`.

PDQ makes 64×64 greys of a picture, each a mean of its surroundings (a tent, half a cell to each
side), and its bits tell which of their 256 lowest frequencies are over the median. Its reference
hashes pictures of up to 512 pixels a side as they are, and so does this. Larger ones, for which
`pdqhash` takes long, are reduced here by the same tent: of 31 photos, some of them enlarged, the
hashes were 4 bits of 256 on average (nine in ten at most 8, all at most 18) from what it makes of
all pixels. Hashes of the same photos with all but 512×512 pixels left out, as Meta's command does,
are 12 (46 at most) from that.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pdqhash
from PIL import Image

from inference.decoder.media import Background, PerceptualHash
from inference.decoder.reduction import Picture
from inference.decoder.renderings import Rendering, rendered

HASH_BYTES = 32
_AS_IT_IS = 512  # pixels of the longer side: PDQ's own DOWNSAMPLE_DIMS
# Of what is larger: at 128, hashes of scaled JPEGs were up to 10 bits from those of the whole.
_LEAST_SIDE = 256
_CELLS = 64


def hash_scale(width: int, height: int) -> float:
    """How much of a frame's size a hash needs."""
    if max(width, height) <= _AS_IT_IS:
        return 1.0
    return max(_LEAST_SIDE / width, _LEAST_SIDE / height)


def hashes_of(
    frame_index: int, picture: Picture, ways: Collection[Rendering]
) -> list[PerceptualHash]:
    """A hash of the whole picture for each way in which views of it were shown.

    Where one region looks different on white and black, what is the same in others is on both.
    """
    reduced = _reduced(picture)
    on_both = {way.plain for way in ways if way.background is Background.WHITE}
    return [
        PerceptualHash(frame_index, way.background, *_pdq(rendered(reduced, picture.colours, way)))
        for way in sorted(ways, key=lambda way: (way.plain, way.background))
        if way.background is not Background.NONE or way.plain not in on_both
    ]


def _reduced(picture: Picture) -> Image.Image:
    """All of the picture as far as its hash sees it.

    Pillow's bilinear filter is a tent over one cell to each side. So that it is one of half a cell
    as PDQ's is, there are twice as many of them, and that every second one is where PDQ's are, they
    begin a quarter of its cells from the edge.
    """
    image = picture.image
    if max(picture.width, picture.height) <= _AS_IT_IS:
        return image
    cells = 2 * _CELLS - 1
    across, down = image.width / (4 * _CELLS), image.height / (4 * _CELLS)
    box = (across, down, image.width - across, image.height - down)
    doubled = image.resize((cells, cells), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    # Every second one of both, the first and the last among them: 0, 2, …, 126.
    return doubled.resize((_CELLS, _CELLS), Image.Resampling.NEAREST)


def _pdq(image: Image.Image) -> tuple[bytes, int]:
    """The hash of an RGB picture, and its quality.

    `pdqhash` gives the bits with the highest first, as they stand in the hexadecimal form that
    Meta's tools print. What can't be hashed is as what is too small for PDQ: zeros of quality 0,
    so that it equals nothing, and is missed by whoever wants all pictures of a file to be known.
    """
    try:
        bits, quality = pdqhash.compute(np.asarray(image))
        return np.packbits(bits).tobytes(), int(quality)
    except MemoryError:  # of the process, not of this picture
        raise
    except Exception:
        return bytes(HASH_BYTES), 0
