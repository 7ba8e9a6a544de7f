"""How long it takes to find what looks alike among many overrides.

`python -m benchmarks.overrides` prints a table.
"""

from __future__ import annotations

import argparse
import random
import time
import tracemalloc
from collections.abc import Callable

from gateway.overrides.matching import Override, OverrideAction, OverrideSet
from gateway.overrides.perceptual_index import WITHIN_BITS, PerceptualIndex
from imagesafety.scores import PerceptualHash

LOOKUPS = 300


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000])
    print(
        "  entries   one by one   lookup by index   of 16 pictures   change of one"
        "   building   memory of the index"
    )
    for entries in parser.parse_args().entries:
        print(measure(entries))


def measure(size: int) -> str:
    """One line of the table."""
    rng = random.Random(size)  # noqa: S311 - no secret
    hashes = {f"{number:032x}": rng.randbytes(32) for number in range(size)}
    wanted = [rng.randbytes(32) for _ in range(LOOKUPS)]
    numbers = [int.from_bytes(value, "big") for value in hashes.values()]

    def one_by_one() -> None:
        number = int.from_bytes(wanted[0], "big")
        [value for value in numbers if (value ^ number).bit_count() <= WITHIN_BITS]

    started = time.perf_counter()
    index = PerceptualIndex(hashes)
    building = time.perf_counter() - started
    overrides = OverrideSet(_deny(key, value) for key, value in hashes.items())
    pictures = [[PerceptualHash(value, 100) for value in wanted[n : n + 16]] for n in range(16)]
    new = _deny("new", wanted[0])
    lookup = _each(lambda: [list(index.near(value)) for value in wanted], 1) / LOOKUPS
    return (
        f"{size:9}   {_each(one_by_one, 10) * 1e6:7.0f} µs"
        f"   {lookup * 1e6:12.0f} µs"
        f"   {_each(lambda: [overrides.alike(of, 1) for of in pictures], 1) / 16 * 1e6:11.0f} µs"
        f"   {_each(lambda: overrides.changed([new], []), 10) * 1e3:10.2f} ms"
        f"   {building * 1e3:5.0f} ms   {_memory(hashes) / 1e6:16.1f} MB"
    )


def _deny(key: str, pdq: bytes) -> Override:
    return Override(key, OverrideAction.DENY, None, pdq, None, "", "", 0)


def _each(work: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def _memory(hashes: dict[str, bytes]) -> int:
    tracemalloc.start()
    kept = PerceptualIndex(hashes)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size


if __name__ == "__main__":
    main()
