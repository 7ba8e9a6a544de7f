"""uvicorn's HTTP protocol, with what it leaves open closed.

The time of a request's first byte (the time budget starts there, not at the end of its headers), a
bound on the size and the time of headers, trailers that are dropped, and JSON for what is no HTTP.
"""

from __future__ import annotations

import asyncio
import json
import time

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024
FIRST_BYTE = "imagesafety.first_byte"
"""Key of the scope's state: time.monotonic() at the request's first byte."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    header_seconds = 8.0
    _header_bytes = 0
    _reads_headers = False
    _moved = False  # the last bytes brought a body, or the end of headers
    _is_last = False
    _late: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._moved = False
        super().data_received(data)
        if not self._moved:  # headers so far, or trailers
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("the headers are too large")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.scope["state"][FIRST_BYTE] = time.monotonic()
        self._reads_headers, self._header_bytes = True, 0
        self._late = self.loop.call_later(self.header_seconds, self._give_up)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are none (RFC 9110, section 6.5.1), and proxies hand them on."""
        if self._reads_headers:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        self._moved, self._header_bytes = True, 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """The last byte of the headers."""
        self._moved, self._header_bytes = True, 0
        self._stop_waiting()
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server stops: what has begun is answered, a request that is still coming too."""
        if self._reads_headers:
            self._is_last = True
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no request, and closes the connection."""
        self._stop_waiting()
        body = json.dumps({"error": "malformed_request", "message": msg}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    @classmethod
    def with_limit(cls, header_seconds: float) -> type[BoundedHttpProtocol]:
        """The protocol with another limit on how long headers may take."""
        return type(cls.__name__, (cls,), {"header_seconds": header_seconds})

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("the headers took too long")

    def _stop_waiting(self) -> None:
        self._reads_headers = False
        if self._late is not None:
            self._late.cancel()
            self._late = None
