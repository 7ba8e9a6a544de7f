"""haproxy takes the configuration, goes by /readyz, and is asked for where it is not installed."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.rehearsal.proxy import proxy
from benchmarks.serving.processes import BenchmarkError
from tests.e2e.processes import fetch, free_port, wait_until

needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")


class Backend:
    """A server that says its name, and on /readyz whether it is ready."""

    def __init__(self, name: str) -> None:
        self.name, self.ready = name, True


@contextlib.contextmanager
def served(backend: Backend) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if backend.ready or self.path != "/readyz" else 503)
            self.end_headers()
            self.wfile.write(backend.name.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@needs_haproxy
def test_only_gateways_that_are_ready_get_connections() -> None:
    one, two = Backend("one"), Backend("two")
    listen = f"127.0.0.1:{free_port()}"

    def answering() -> set[str]:
        return {fetch(f"http://{listen}/")[1] for _ in range(4)}

    with served(one) as first, served(two) as second, proxy(listen, [first, second]):
        wait_until(lambda: answering() == {"one", "two"}, "both get connections", 20)
        one.ready = False
        wait_until(lambda: answering() == {"two"}, "only the second gets any", 20)
        one.ready = True
        wait_until(lambda: answering() == {"one", "two"}, "the first is back", 20)


def test_without_haproxy_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(BenchmarkError, match="apt-get install haproxy"), proxy("127.0.0.1:1", []):
        pass
