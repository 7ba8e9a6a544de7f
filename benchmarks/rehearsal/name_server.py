"""A DNS server for one name, whose addresses can be changed while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

TTL_SECONDS = 1
_LONGEST_UDP = 512

log = logging.getLogger(__name__)


class NameServer:
    """Answers A questions for one name over UDP and TCP; all other names don't exist."""

    def __init__(self, name: str) -> None:
        self.name = dns.name.from_text(name)
        self.addresses: tuple[str, ...] = ()
        self.questions = 0

    def answer(self, question: bytes, *, longest: int = 65_535) -> bytes | None:
        """The answer to a message, None to what is none."""
        try:
            query = dns.message.from_wire(question)
            response = dns.message.make_response(query)
        except dns.exception.DNSException:
            return None
        response.flags |= dns.flags.AA
        asked = query.question[0] if query.question else None
        if asked is None or asked.name != self.name:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif asked.rdtype == dns.rdatatype.A:
            self.questions += 1
            if self.addresses:
                response.answer.append(
                    dns.rrset.from_text_list(self.name, TTL_SECONDS, "IN", "A", self.addresses)
                )
        try:
            return response.to_wire(max_size=longest)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, longest=_LONGEST_UDP)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


@contextlib.asynccontextmanager
async def name_server(
    name: str, listen: str, port: int, addresses: Sequence[str] = ()
) -> AsyncIterator[NameServer]:
    """Serves until the block ends."""
    server = NameServer(name)
    server.addresses = tuple(addresses)

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                length = int.from_bytes(await reader.readexactly(2))
                answer = server.answer(await reader.readexactly(length))
                if answer is None:
                    break
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(server), (listen, port))
    tcp = await asyncio.start_server(over_tcp, listen, port)
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
