import json
import logging
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, threading, warnings
from telemetry.logs import configure_logs
configure_logs("gateway", "info", sys.argv[1])
log = logging.getLogger("gateway")
log.info("scored %d", 3, extra={"cause": "policy", "bytes": 7})
log.debug("not shown")
logging.getLogger("uvicorn.error").warning("odd request")
warnings.warn("this is old")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("it failed")
thread = threading.Thread(target=lambda: [][1])
thread.start()
thread.join()
raise KeyError("two\\nlines")
"""


def lines(log_format: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, log_format]
    return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()


def test_every_line_is_one_object() -> None:
    found = [json.loads(line) for line in lines("json")]
    assert [(one["level"], one["logger"]) for one in found] == [
        ("INFO", "gateway"),
        ("WARNING", "uvicorn.error"),
        ("WARNING", "py.warnings"),
        ("ERROR", "gateway"),
        ("ERROR", "gateway"),
        ("CRITICAL", "gateway"),
    ]
    first = found[0]
    assert (first["message"], first["cause"], first["bytes"]) == ("scored 3", "policy", 7)
    assert first["time"].endswith("+00:00")
    assert "ZeroDivisionError" in found[3]["traceback"]
    assert "IndexError" in found[4]["traceback"]
    assert "KeyError" in found[5]["traceback"]


def test_text_has_the_fields_behind_the_message() -> None:
    first, second, *_ = lines("text")
    assert first.endswith("INFO gateway: scored 3 (cause=policy bytes=7)")
    assert second.endswith("WARNING uvicorn.error: odd request")


def test_a_line_is_logged_once_however_often_it_is_configured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from telemetry.logs import configure_logs

    handlers = list(logging.root.handlers)
    try:
        configure_logs("some-service", "info", "text")
        configure_logs("some-service", "info", "text")
        logging.getLogger("some-service").info("once")
        assert capsys.readouterr().err.count("once") == 1
    finally:
        logging.root.handlers = handlers
        logging.captureWarnings(False)
