"""An admin port with recorded decisions that a browser can reach, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from imagesafety.policy import Action
from tests.gateway.admin.admin_port import AdminPort, admin_port, number, rejected, uploaded
from tests.serving import serving


@dataclass(frozen=True)
class AdminServer:
    """Where it is, and what it has."""

    url: str
    port: AdminPort


@contextlib.contextmanager
def admin_server(folder: Path, token: str = "") -> Iterator[AdminServer]:
    """Serves until the block ends."""
    started: Future[AdminServer] = Future()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        try:
            async with admin_port(folder, token=token) as port, serving(port.app) as url:
                await _fill(port)
                started.set_result(AdminServer(url, port))
                await ended.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield started.result(60)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(60)
        loop.close()


async def _fill(port: AdminPort) -> None:
    """One decision of each kind, and enough for a second page."""
    await port.keep(
        *(uploaded(n) for n in range(100, 170)),
        rejected(1),
        uploaded(2, flagged=True, rule="red-and-triangle", views=()),
        uploaded(3, unscanned=True, cause="overload", views=(), message="the queue is full"),
        uploaded(4, shadow=Action.REJECT, shadow_rule="red-and-triangle", views=()),
        rejected(5, client="a" * 128, media_type="application/x-" + "x" * 18, message="m" * 300),
    )


PATHS = (
    "/",
    "/?period=7d",
    "/decisions",
    "/decisions?state=flagged",
    f"/decisions/{number(1)}",
    f"/decisions/{number(3)}",
    f"/decisions/{number(5)}",
    "/unscanned",
    "/overrides",
    "/overrides/history",
    "/what-if",
    "/login",
)
