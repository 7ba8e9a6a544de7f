"""What is closed in the end: clients after the block in which they are used, and sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable
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


async def close_source(source: AsyncIterable[object]) -> None:
    """Has a generator let go of what it holds, if it was left in the middle."""
    if isinstance(source, AsyncGenerator):
        await source.aclose()
