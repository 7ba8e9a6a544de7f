"""`/metrics`, `/livez` and `/readyz` over HTTP, in a thread of their own.

So they answer while the model is loaded and while the event loop is busy.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from inference.metrics import Metrics

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_REQUEST_SECONDS = 10.0  # from the connection to the end of the answer
_CONNECTIONS = 16  # at once, each with a thread

Objection = Callable[[], str | None]
"""Tells what is wrong, None if nothing is. Called in another thread."""


@dataclass
class Probes:
    """Who answers the probes; both may be replaced while they are served."""

    live: Objection = lambda: None
    ready: Objection = lambda: "the model is being loaded"


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each connection in a thread, a few at once, and none for long."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._since: dict[socket.socket, float] = {}  # the open connections
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._since) >= _CONNECTIONS
            if not full:
                self._since[request] = time.monotonic()
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Is called every now and then: breaks off what takes too long, whatever it waits for."""
        latest = time.monotonic() - _REQUEST_SECONDS
        with self._lock:
            for request, since in self._since.items():
                if since < latest:
                    with suppress(OSError):  # it has ended just now
                        request.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # That of WSGIServer asks the resolver for the name of the address, which can take long.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a client that hung up."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing: a scraper calls every few seconds."""


@contextmanager
def serving_metrics(address: str, metrics: Metrics, probes: Probes) -> Iterator[None]:
    """Serves at "ADDRESS:PORT" until the block ends; "" serves nothing.

    Raises OSError if it can't listen there.
    """
    metrics.watch_readiness(lambda: probes.ready() is None)
    if not address:
        yield
        return
    server = _listening(address)
    server.set_app(_app(metrics.registry, probes))
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listening(address: str) -> _Server:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        made = type("Server", (_Server,), {"address_family": family})
        server: _Server = made((host, int(port)), _Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"cannot listen on {address}: {reason}") from error
    return server


def _app(registry: CollectorRegistry, probes: Probes) -> WSGIApplication:
    metrics: WSGIApplication = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                return metrics(environ, start_response)
            case "/livez":
                trouble = probes.live()
            case "/readyz":
                trouble = probes.ready()
            case _:
                start_response("404 Not Found", _text())
                return [b"only /metrics, /livez and /readyz are here\n"]
        start_response("503 Service Unavailable" if trouble else "200 OK", _text())
        return [f"{trouble or 'ok'}\n".encode()]

    return app


def _text() -> list[tuple[str, str]]:
    # Made anew for each answer: wsgiref adds that one's length to it.
    return [("Content-Type", "text/plain; charset=utf-8")]
