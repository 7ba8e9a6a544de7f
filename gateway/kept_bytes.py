"""How many bytes of uploads are kept for another try, of all uploads together."""

from __future__ import annotations

_ONE_OF = 4  # an upload may take a quarter: a few large ones must not leave the others none


class KeptBytes:
    """A number of bytes that uploads share."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._most_each = most // _ONE_OF

    def take(self, count: int, taken: int) -> bool:
        """Counts bytes in for an upload that has `taken` already, if there is room for them."""
        if count > self._left or count + taken > self._most_each:
            return False
        self._left -= count
        return True

    def give_back(self, count: int) -> None:
        """Counts bytes out."""
        self._left += count
