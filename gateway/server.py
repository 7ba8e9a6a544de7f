"""Starts the gateway's two HTTP servers, and stops them when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Generator, Sequence

import uvicorn
import uvloop
from starlette.applications import Starlette

from gateway.app import admin_app, upload_app
from gateway.decision import Cause, Decider
from gateway.http_protocol import BoundedHttpProtocol
from gateway.metrics import Metrics
from gateway.scan import Scanner
from gateway.settings import Settings, host_and_port, load_settings
from imagesafety.client import ScoringClient
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, find_policy, load_policy

# Longer than clients keep theirs: one that writes into a connection just as we close it loses an
# upload, whose streamed body it can't send twice.
KEEP_ALIVE_SECONDS = 120

log = logging.getLogger("gateway")


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to whoever runs two of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def main(arguments: Sequence[str]) -> int:
    """Runs the gateway until SIGTERM or SIGINT; the exit code."""
    settings = load_settings(arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    log.setLevel(settings.log_level.upper())
    try:
        policy = load_policy(find_policy(settings.policy))
        if settings.tls is not None:
            settings.tls.credentials()
        sockets = [_bind(settings.listen), _bind(settings.admin_listen)]
    except (PolicyError, OSError) as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201
        return 2
    # uvloop sends an answer's head and body together: by that, the gateway costs a tenth less.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, policy, sockets))


def _bind(address: str) -> socket.socket:
    host, port = host_and_port(address)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror or error}") from error
    # Connections inherit it. asyncio sets it only where a socket was made with the protocol's
    # number, and without it an answer's second packet waits 40 ms for the first one's receipt.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


async def _serve(settings: Settings, policy: Policy, sockets: list[socket.socket]) -> int:
    decider = Decider(
        policy,
        {
            Cause.UNDECODABLE: settings.on_undecodable == "accept",
            Cause.OVERLOAD: settings.on_overload == "accept",
            Cause.UNAVAILABLE: settings.on_unavailable == "accept",
            Cause.DEADLINE: settings.on_deadline == "accept",
            Cause.ERROR: settings.on_error == "accept",
        },
    )
    metrics = Metrics()
    async with ScoringClient(settings.inference, settings.tls) as client:
        scanner = Scanner(settings, client, decider, metrics)
        servers = [
            _server(upload_app(scanner, client, policy), settings),
            _server(admin_app(metrics), settings),
        ]
        _stop_on_signals(servers)
        log.info(
            "listening on http://%s, metrics on http://%s, inference at %s, policy for %s",
            *(settings.listen, settings.admin_listen, settings.inference, policy.model),
        )
        await asyncio.gather(
            *(server.serve(sockets=[bound]) for server, bound in zip(servers, sockets, strict=True))
        )
    log.info("stopped")
    return 0


def _server(app: Starlette, settings: Settings) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=BoundedHttpProtocol.with_limit(settings.time_budget - settings.answer_margin),
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            log_config=None,
            log_level="warning",
            access_log=False,  # the path may hold a secret
            proxy_headers=False,  # X-Forwarded-For proves nothing
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=settings.drain_seconds,
        )
    )


def _stop_on_signals(servers: Sequence[_Server]) -> None:
    def stop() -> None:
        log.info("stopping: running uploads are finished")
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
