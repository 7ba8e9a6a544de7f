"""The gateway's end: connections are led away before they are closed."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Drain:
    """Whether the gateway was asked to stop."""

    begun = False

    def trouble(self) -> str | None:
        """For health: what keeps the gateway from being sent more."""
        return "the gateway is shutting down" if self.begun else None


class LastAnswers:
    """ASGI middleware: once the drain has begun, an answer is the last one on its connection.

    So clients that keep connections open come back on new ones, which reach another gateway, and
    hardly any is still in use when the rest is closed.
    """

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app, self._drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""

        async def send_last(message: Message) -> None:
            if self._drain.begun and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_last)
