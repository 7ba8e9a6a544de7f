"""Logs for programs: one JSON object a line, with the decision's fields and no secret."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.faulty_encoder import RAISES
from tests.e2e.pict_rs import post
from tests.e2e.processes import Service, free_port, gateway, is_serving, running, wait_until
from tests.media import drawn, still

BAD = still(drawn(("red", "triangle"), size=100))
GUILTY = still(Image.new("RGB", (64, 64), RAISES))
SECRET = "0123456789abcdef-logs"
TOKEN = "0123456789abcdef-token"
PATH = f"/api/v1/scan/{SECRET}"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """A gateway, and an inference service whose model fails on some pictures."""
    address = f"127.0.0.1:{free_port()}"
    folder = str(tmp_path_factory.mktemp("encoder"))
    command = ["tests.e2e.faulty_encoder", folder, "--listen", address, "--backend", "pytorch"]
    secret = ["--client-secrets", f"lemmy:{SECRET}", "--admin-token", TOKEN, "--repeats", "false"]
    with contextlib.ExitStack() as stack:
        form = ["--log-format", "json"]
        ready = lambda: is_serving(address)  # noqa: E731
        scoring = stack.enter_context(running([*command, *form], address, ready))
        yield stack.enter_context(gateway(address, *secret, *form)), scoring


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(service.log).read_text().splitlines()]


async def test_a_decision_has_its_fields(services: tuple[Service, Service]) -> None:
    http, _ = services
    answer = await post(http.address, BAD, path=PATH)
    [line] = [one for one in lines(http) if one.get("id") == answer.body["id"]]
    assert line["time"]
    assert isinstance(line["milliseconds"], int)
    assert {key: line[key] for key in line.keys() - {"time", "milliseconds"}} == {
        "level": "INFO",
        "logger": "gateway",
        "message": answer.body["message"],
        "decision": "reject",
        "cause": "policy",
        "rule": answer.body["rule"],
        "unscanned": False,
        "id": answer.body["id"],
        "client": "lemmy",
        "media_type": "image/png",
        "bytes": len(BAD),
        "reference": "",
        "user_agent": "pict-rs v0.5.0-main",
    }


async def test_a_traceback_is_one_line(services: tuple[Service, Service]) -> None:
    http, scoring = services
    answer = await post(http.address, GUILTY, path=PATH)
    assert answer.body["cause"] == "error"
    failed = [one for one in lines(scoring) if "traceback" in one]
    assert failed
    assert all("Traceback (most recent call last)" in one["traceback"] for one in failed)
    [line] = [one for one in lines(http) if one.get("id") == answer.body["id"]]
    assert (line["level"], line["unscanned"]) == ("WARNING", True)


async def test_no_secret_and_no_byte_of_an_image_is_logged(
    services: tuple[Service, Service],
) -> None:
    http, _ = services
    await post(http.address, BAD, path=PATH)
    await post(http.address, BAD, path=f"{PATH}x")  # wrong, and near the right one
    await post(http.address, b"this-is-no-picture", path=PATH)
    await post(http.address, BAD, "text/plain", path=PATH)
    reader, writer = await asyncio.open_connection(*http.address.split(":"))
    writer.write(f"POST {PATH} is no HTTP\r\n\r\n".encode())
    await reader.read()
    writer.close()
    reader, writer = await asyncio.open_connection(*http.address.split(":"))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9"
    writer.write(f"{head}\r\n\r\nab".encode())
    await writer.drain()
    writer.close()
    await asyncio.to_thread(
        wait_until, lambda: "hung up" in http.output(), "the client that hung up", 10
    )
    assert {"refused"} <= {one["message"] for one in lines(http)}
    for service in services:
        assert lines(service)
        for hidden in (SECRET, TOKEN, "this-is-no-picture", "PNG"):
            assert hidden not in service.output()
