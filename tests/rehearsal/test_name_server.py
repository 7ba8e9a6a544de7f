"""The name server of the rehearsal, asked over the network."""

from __future__ import annotations

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from benchmarks.rehearsal.name_server import TTL_SECONDS, name_server
from tests.e2e.processes import free_port

HOST, NAME = "127.0.0.1", "inference.rehearsal"


async def asked(port: int, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
    ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await ask(dns.message.make_query(name, kind), HOST, timeout=5, port=port)


def addresses(answer: dns.message.Message) -> set[str]:
    return {str(record) for records in answer.answer for record in records}


@pytest.mark.parametrize("tcp", [False, True])
async def test_addresses_change_while_it_serves(tcp: bool) -> None:
    port = free_port()
    async with name_server(NAME, HOST, port, ["127.0.1.1"]) as server:
        assert addresses(await asked(port, NAME, tcp=tcp)) == {"127.0.1.1"}
        server.addresses = ("127.0.1.2", "127.0.1.3")
        answer = await asked(port, NAME, tcp=tcp)
    assert addresses(answer) == {"127.0.1.2", "127.0.1.3"}
    assert answer.answer[0].ttl == TTL_SECONDS


async def test_what_it_does_not_have() -> None:
    port = free_port()
    async with name_server(NAME, HOST, port, ["127.0.1.1"]) as server:
        ipv6 = await asked(port, NAME, "AAAA")
        other = await asked(port, "other.rehearsal")
        server.addresses = ()
        nobody = await asked(port, NAME)
    assert (ipv6.rcode(), ipv6.answer) == (dns.rcode.NOERROR, [])
    assert other.rcode() == dns.rcode.NXDOMAIN
    assert (nobody.rcode(), nobody.answer) == (dns.rcode.NOERROR, [])


async def test_many_addresses_are_told_over_tcp() -> None:
    port = free_port()
    many = [f"127.0.1.{number}" for number in range(1, 101)]
    async with name_server(NAME, HOST, port, many):
        short = await asked(port, NAME)
        full = await asked(port, NAME, tcp=True)
    assert short.flags & dns.flags.TC
    assert addresses(full) == set(many)
