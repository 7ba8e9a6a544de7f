"""Clients that keep connections open cost the service a few threads, and not for long."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from inference import metrics_server
from inference.metrics import Metrics
from inference.metrics_server import Probes, serving_metrics
from tests.e2e.processes import fetch, free_port, wait_until


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    host, port = "127.0.0.1", free_port()
    with serving_metrics(f"{host}:{port}", Metrics(), Probes(ready=lambda: None)):
        yield host, port


def is_answered(address: tuple[str, int]) -> bool:
    return fetch(f"http://127.0.0.1:{address[1]}/livez") == (200, "ok\n")


def test_connections_are_bounded(address: tuple[str, int]) -> None:
    before = threading.active_count()
    idle = [socket.create_connection(address) for _ in range(16)]
    wait_until(lambda: threading.active_count() == before + 16, "threads", 10)
    with closing(socket.create_connection(address, timeout=10)) as refused:
        assert refused.recv(1) == b""
    assert not is_answered(address)
    assert threading.active_count() == before + 16
    for connection in idle:
        connection.close()
    wait_until(lambda: is_answered(address), "room", 10)


def test_who_drips_bytes_is_cut_off(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "_REQUEST_SECONDS", 0.5)
    with closing(socket.create_connection(address)) as slow:
        slow.settimeout(0.05)
        slow.sendall(b"GET /metrics HTTP/1.1\r\nX: ")

        def is_cut_off() -> bool:
            try:
                slow.sendall(b"x")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(is_cut_off, "the end of the connection", 20)
    assert is_answered(address)
