"""The status that a server ended a call with, when grpc.aio has overwritten it.

When a server ends a call before the client has sent everything, the client's next write fails, and
grpc.aio then replaces the status that has already come by INTERNAL, "Internal error from Core"
(https://github.com/grpc/grpc/issues/36066, seen with grpcio 1.85.1). Which of a full service, a
drain or a limit it was would be lost. tests/test_client.py shows the difference.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

T = TypeVar("T")

_ARTEFACT = "Internal error from Core"


class ServerStatus:
    """Remembers the status that the server sent, as it comes in."""

    def __init__(self, call: grpc.aio.Call) -> None:
        self._sent: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._remember)

    def of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error that the server meant by what grpc.aio raised."""
        return self._sent if self._sent is not None and _is_artefact(error) else error

    def _remember(self, call: Any) -> None:
        code, details = _known(call.code()), _known(call.details())
        error = grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), _known(call.trailing_metadata()), details
        )
        if code is not grpc.StatusCode.OK and not _is_artefact(error):
            self._sent = error


def _is_artefact(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and (error.details() or "") == _ARTEFACT


def _known(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise RuntimeError("the call is not done")
