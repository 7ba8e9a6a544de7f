"""Restarts of a service by `imagesafety up`, and the reason for its end."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from imagesafety.command.up import FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS, Restarts
from tests.e2e.processes import children, free_port, wait_until


def test_a_service_that_dies_is_started_again_with_growing_pauses() -> None:
    restarts = Restarts()
    pauses = []
    for _ in range(10):
        after = restarts.after(-9, 1)
        assert after is not None
        restarts = after
        pauses.append(restarts.pause)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    steady = restarts.after(-9, STEADY_SECONDS + 1)
    assert steady is not None
    assert steady.pause == FIRST_PAUSE


def test_a_wrong_setting_is_final_unless_it_has_worked_before() -> None:
    assert Restarts().after(2, 1) is None
    worked = Restarts().after(-9, STEADY_SECONDS + 1)
    assert worked is not None
    assert worked.after(2, 1) is not None


def test_up_says_why_a_service_ended_and_starts_it_again(tmp_path: Path) -> None:
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = {
        **os.environ,
        "IMAGESAFETY_INFERENCE_LISTEN": f"127.0.0.1:{free_port()}",
        "IMAGESAFETY_INFERENCE_CACHE_FOLDER": str(tmp_path / "cache"),
        "IMAGESAFETY_GATEWAY_LISTEN": listen,
        "IMAGESAFETY_GATEWAY_ADMIN_LISTEN": admin,
        "IMAGESAFETY_GATEWAY_DATA_FOLDER": str(tmp_path / "data"),
    }
    command = [sys.executable, "-m", "imagesafety.command", "up"]
    with (tmp_path / "log").open("wb") as log:
        up = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def said() -> str:
        return (tmp_path / "log").read_text()

    def running(service: str) -> list[int]:
        return [pid for pid, line in children(up.pid).items() if f"-m {service} " in line]

    try:
        for service, number in (("inference", signal.SIGKILL), ("gateway", signal.SIGSEGV)):
            wait_until(lambda: bool(running(service)), f"start of {service}")  # noqa: B023
            (first,) = running(service)
            os.kill(first, number)
            wait_until(lambda: running(service) not in ([], [first]), "another start")  # noqa: B023
        (inference,) = re.findall(r"^imagesafety: inference .*$", said(), re.MULTILINE)
        (gateway,) = re.findall(r"^imagesafety: gateway .*$", said(), re.MULTILINE)
        assert re.fullmatch(
            r"imagesafety: inference was killed .*: the (limit is|machine has) [\d.]+ [MG]B, "
            r"it had used up to \d+ MB, this model needs about 0\.8 GB; starting it again in .* s",
            inference,
        )
        assert gateway.startswith("imagesafety: gateway crashed (SIGSEGV): ")
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    assert not running("inference")
    assert said().count("imagesafety: ") == 2, "a service that was stopped needs no reason"
    assert "Traceback" not in said()


def test_up_says_that_a_wrong_setting_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imagesafety.command", "up"]
    environment = {
        **os.environ,
        "IMAGESAFETY_INFERENCE_MAX_BATCH": "none",
        "IMAGESAFETY_GATEWAY_LISTEN": f"127.0.0.1:{free_port()}",
        "IMAGESAFETY_GATEWAY_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "IMAGESAFETY_GATEWAY_DATA_FOLDER": str(tmp_path),
    }
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert ended.returncode == 2
    assert "inference: wrong setting: max_batch" in ended.stderr
    assert ended.stderr.count("imagesafety: inference can't run as it is set (code 2)") == 1
    assert "starting it again" not in ended.stderr


_SERVICE = """#!/bin/sh
# In place of Python: inference ends once, and takes the program away for a while.
cd "${0%/*}" || exit
if [ "$2" = gateway ]; then
    touch gateway-runs
elif [ -e inference-ended ]; then
    touch inference-runs-again
else
    until [ -e gateway-runs ]; do sleep 0.1; done
    touch inference-ended
    mv program program-away
    exit 1
fi
exec sleep 600
"""


def test_a_service_that_can_not_be_started_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(_SERVICE)
    program.chmod(0o755)
    start = f"import sys; sys.executable = {str(program)!r}; from imagesafety.command import main"
    command = [sys.executable, "-c", f"{start}; sys.exit(main())", "up"]
    with (tmp_path / "log").open("wb") as log:
        up = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        words = "imagesafety: inference can't be started: "
        wait_until(lambda: words in (tmp_path / "log").read_text(), "report")
        (tmp_path / "program-away").rename(program)
        wait_until((tmp_path / "inference-runs-again").exists, "start of inference")
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            code = up.wait(30)
        finally:
            up.kill()
    assert code == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
