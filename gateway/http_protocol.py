"""uvicorn's HTTP protocol, with what it leaves open closed.

The time of a request's first byte (the time budget starts there, not at the end of its headers), a
bound on the size and the time of headers, trailers that are dropped, offers of other protocols that
cost no body, and JSON for what is not HTTP.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024
FIRST_BYTE = "imagesafety.first_byte"
"""Key of the scope's state: time.monotonic() at the request's first byte."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    header_seconds = 8.0
    parser: _Parser
    _first_byte: float | None = None  # of a request whose head is parsed again
    _header_bytes = 0
    _reads_headers = False
    _moved = False  # the last bytes brought a body, or the end of headers
    _is_last = False
    _late: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

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
        self.scope["state"][FIRST_BYTE] = self._first_byte or time.monotonic()
        self._first_byte = None
        self._reads_headers, self._header_bytes = True, 0
        self._late = self.loop.call_later(self.header_seconds, self._give_up)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are dropped (RFC 9110, section 6.5.1), and proxies hand them on."""
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
        if self.parser.offers_protocol():
            return
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The end of the request."""
        if not self.parser.offers_protocol():
            super().on_message_complete()

    def head_without_offer(self) -> bytes:
        """The head of the request that has just been parsed, without the header Upgrade."""
        self._first_byte = self.scope["state"][FIRST_BYTE]
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

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


class _Parser(httptools.HttpRequestParser):
    """A parser that passes over the offer of another protocol (RFC 9110, section 7.8).

    Else the request's body would be lost, or taken for the next request. Java's client and
    `curl --http2` offer HTTP/2.
    """

    def __init__(self, protocol: BoundedHttpProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def offers_protocol(self) -> bool:
        """Say whether the head just parsed will be parsed again, without its offer.

        That of a last request is not: what follows it cannot be had back from the parser.
        """
        again: bool = self.should_upgrade() and self.should_keep_alive()
        return again and self.get_method() != b"CONNECT"

    def feed_data(self, data: bytes | bytearray | memoryview | array[int]) -> None:
        """Parse the next bytes."""
        while True:
            try:
                return super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if not self.offers_protocol():
                    raise
                data = self._protocol.head_without_offer() + bytes(data[offer.args[0] :])
