"""Clients that close when the block ends in which they are used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class ClosedAtEnd(ABC):
    """Something with connections: `async with` closes it, whatever ends the block."""

    @abstractmethod
    async def close(self) -> None:
        """Ends what still runs and closes the connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
