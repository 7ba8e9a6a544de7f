"""Starts the gateway's two HTTP servers, and stops them when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

import uvicorn
import uvloop
from starlette.applications import Starlette

from gateway.assembly import Gateway, assembled
from gateway.http_protocol import BoundedHttpProtocol
from gateway.ledger.database import LedgerError
from gateway.settings import Settings, host_and_port, load_settings
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, find_policy, load_policy
from telemetry.exporting import TracingError
from telemetry.logs import configure_logs
from telemetry.tracing import tracing

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
    configure_logs("gateway", settings.log_level, settings.log_format)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(tracing("imagesafety-gateway"))
        except TracingError as error:
            print(f"gateway: {error}", file=sys.stderr)  # noqa: T201
            return 2
        return _run(settings)


def _run(settings: Settings) -> int:
    try:
        path = find_policy(settings.policy)
        policy = load_policy(path)
        if settings.tls is not None:
            settings.tls.credentials()
        sockets = [_bind(settings.listen), _bind(settings.admin_listen)]
    except (PolicyError, OSError) as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201
        return 2
    # uvloop sends an answer's head and body together: by that, the gateway costs a tenth less.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, path, policy, sockets))


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


async def _serve(
    settings: Settings, path: Path, policy: Policy, sockets: list[socket.socket]
) -> int:
    try:
        async with assembled(settings, path, policy) as gateway:
            servers = [_server(app, settings) for app in (gateway.uploads, gateway.admin)]
            _handle_signals(servers, gateway, settings.drain_delay)
            log.info(
                "listening on http://%s, admin pages on http://%s, inference at %s, policy for %s",
                *(settings.listen, settings.admin_listen, settings.inference, policy.model),
            )
            await asyncio.gather(
                *(
                    server.serve(sockets=[bound])
                    for server, bound in zip(servers, sockets, strict=True)
                )
            )
    except LedgerError as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201
        return 2
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
            timeout_graceful_shutdown=settings.longest_drain,
        )
    )


def _handle_signals(servers: Sequence[_Server], gateway: Gateway, drain_delay: float) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if gateway.drain.begun:  # asked a second time
            close()
            return
        gateway.drain.begun = True
        if drain_delay:
            log.info("stopping: not ready, uploads are still taken for %g s", drain_delay)
        loop.call_later(drain_delay, close)

    def close() -> None:
        log.info("stopping: running uploads are finished")
        for server in servers:
            server.should_exit = True

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    loop.add_signal_handler(signal.SIGHUP, gateway.reloader.ask)
