"""What the inference service says when it gives no scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "imagesafety"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PASSING_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


class ScoringError(Exception):
    """The service gave no scores; `reason` is one of scoring.proto's, or empty."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(f"{code.name}{f' ({reason})' if reason else ''}: {message}")
        self.code, self.reason, self.message = code, reason, message

    @property
    def may_pass(self) -> bool:
        """Whether the same file may have scores another time: the error is none of the file."""
        return self.reason == "QUEUE_FULL" or self.code in _PASSING_CODES


def error_of_call(error: grpc.aio.AioRpcError) -> ScoringError:
    """What a call ended with."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:  # details that contradict the code are worth nothing
        status = None
    details = status.details if status is not None else ()
    return ScoringError(error.code(), _reason(details), error.details() or "")


def error_of_status(status: status_pb2.Status) -> ScoringError:
    """What one image of a stream ended with."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return ScoringError(code, _reason(status.details), status.message)


def _reason(details: Iterable[Any]) -> str:
    for detail in details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            return str(info.reason)
    return ""


class ServiceUnavailableError(Exception):
    """No replica answered for so long that waiting on makes no sense."""
