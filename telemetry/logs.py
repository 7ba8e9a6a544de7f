"""What a log line looks like: text for people, or one JSON object for programs.

What a record has beside its message (`extra`) is a field of its own in both.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Literal

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_KNOWN = frozenset(RESERVED_ATTRS) | {"asctime", "message", "color_message"}


def configure_logs(service: str, level: str, log_format: LogFormat) -> None:
    """Sends all logs of the process to standard error; `level` is that of `service`'s own logger.

    All others tell of warnings and worse. Warnings of Python and exceptions that nobody catches
    are logged too, so that every line has the same form.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_json_formatter() if log_format == "json" else _TextFormatter(_TEXT))
    if log_format == "json":
        handler.addFilter(_add_trace)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(service).setLevel(level.upper())
    logging.captureWarnings(True)
    if log_format == "json":
        _log_uncaught(logging.getLogger(service))


class _TextFormatter(logging.Formatter):
    """The message, and after it the fields."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = [f"{k}={v}" for k, v in record.__dict__.items() if k not in _KNOWN]
        text = super().formatMessage(record)
        return f"{text} ({' '.join(fields)})" if fields else text


def _json_formatter() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        timestamp="time",
        json_ensure_ascii=False,
    )


def _add_trace(record: logging.LogRecord) -> bool:
    """Adds the ids of the span that is current, if there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        record.trace_id = trace.format_trace_id(context.trace_id)
        record.span_id = trace.format_span_id(context.span_id)
    return True


def _log_uncaught(log: logging.Logger) -> None:
    def of_process(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        log.critical("an exception ends the service", exc_info=(kind, error, traceback))

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            log.error(
                "an exception ends a thread",
                exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback),
            )

    sys.excepthook = of_process
    threading.excepthook = of_thread
