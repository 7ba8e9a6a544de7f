"""The batch sizes that a CUDA tower is prepared for: a CUDA graph runs one size only."""

from __future__ import annotations


def bucket_sizes(largest: int) -> tuple[int, ...]:
    """The prepared sizes up to `largest`: powers of two, and one in the middle of each two.

    A batch is filled up to the next size: at most a third of what is computed is for nothing.
    """
    sizes, size = {1, largest}, 2
    while size < largest:
        sizes |= {size, size * 3 // 2}
        size *= 2
    return tuple(sorted(size for size in sizes if size <= largest))


def bucket_for(count: int, sizes: tuple[int, ...]) -> int:
    """The smallest prepared size that `count` pictures fit in. Raises ValueError if none."""
    for size in sizes:
        if count <= size:
            return size
    raise ValueError(f"{count} pictures are more than {sizes[-1]}")


def portions(count: int, largest: int) -> list[slice]:
    """`count` pictures in slices of at most `largest`."""
    return [slice(start, min(start + largest, count)) for start in range(0, count, largest)]
