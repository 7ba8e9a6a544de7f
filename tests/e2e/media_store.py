"""Many files as a media store has them: sound ones, planted ones, broken ones, other things."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.media import ALL, drawn, file_of, still

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
FILES = int(os.environ.get("SCAN_FILES", "300"))
_BASES = 12  # pictures that are drawn; the rest are told apart by a few bytes at their end
_KINDS = {"sound": 6, "corpus": 3, "cut": 2, "noise": 1, "text": 1, "empty": 0.2}  # how often
_PLANTED_IN = 30  # one of so many is a planted one


@dataclass(frozen=True)
class Made:
    """A file, and whether it is one that the demo policy rejects."""

    name: str
    data: bytes
    planted: bool = False


def planted(number: int) -> bytes:
    """A drawing of a red triangle that there is once."""
    return _unique(_PLANTED[number % len(_PLANTED)], number)


def made_files(count: int = FILES, seed: int = 0, *, corpus: bool = True) -> Iterator[Made]:
    """Files of different bytes each."""
    dice = random.Random(seed)
    odd = sorted(path for path in CORPUS.rglob("*") if path.is_file()) if corpus else []
    dice.shuffle(odd)
    for number in range(count):
        folder = f"{number % 7:02}"
        if number % _PLANTED_IN == 0:
            yield Made(f"{folder}/planted-{number}.png", planted(number), planted=True)
            continue
        kind = dice.choices(
            ("sound", "corpus", "cut", "noise", "text", "empty"), (6, 3, 2, 1, 1, 0.2)
        )[0]
        base = _SOUND[dice.randrange(len(_SOUND))]
        name = f"{folder}/{kind}-{number}"
        if kind == "corpus" and odd:
            path = odd[number % len(odd)]
            yield Made(f"{name}{path.suffix}", _unique(path.read_bytes(), number))
        elif kind == "cut":
            yield Made(f"{name}.png", base[: dice.randrange(1, len(base))])
        elif kind == "noise":
            yield Made(f"{name}.jpg", base[:40] + dice.randbytes(500))
        elif kind == "text":
            yield Made(f"{name}.txt", f"a text {number}".encode())
        elif kind == "empty":
            yield Made(f"{name}.png", b"")
        else:
            yield Made(f"{name}.img", _unique(base, number))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unique(data: bytes, number: int) -> bytes:
    """Decoders read no further than the end of the picture."""
    return data + number.to_bytes(4, "big") if data[:4] == b"\x89PNG" else data


_PLANTED = [still(drawn(("red", "triangle"), seed=seed)) for seed in range(3)]
_SOUND = [still(drawn(("blue", "circle"), seed=seed)) for seed in range(_BASES - len(ALL))] + [
    file_of(drawn(("blue", "circle"), seed=100 + index, size=160), media_type)
    for index, media_type in enumerate(ALL)
]
