"""The address of a caller behind proxies, and what forgers write into headers."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.callers import caller_address, parse_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1/32"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("8.8.8.8", [], "8.8.8.8"),
        ("8.8.8.8", ["127.0.0.1"], "8.8.8.8"),  # forged: the peer is no proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["127.0.0.1, 9.9.9.9"], "9.9.9.9"),  # forged in front of a proxy's own
        ("10.0.0.1", ["127.0.0.1", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["1.1.1.1, 9.9.9.9 , 10.0.0.7"], "9.9.9.9"),
        ("10.0.0.1", ["10.0.0.9,10.0.0.7"], "10.0.0.9"),  # nobody but proxies: the first of them
        ("10.0.0.1", ["9.9.9.9:4711"], "9.9.9.9"),
        ("fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["::ffff:9.9.9.9"], "9.9.9.9"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("10.0.0.1", ["unknown"], None),
        ("10.0.0.1", ["9.9.9.9,"], None),
        ("10.0.0.1", [""], None),
        ("10.0.0.1", ["127.0.0.1, <script>"], None),
        ("", [], None),
        (None, ["127.0.0.1"], None),
    ],
)
def test_caller_address(peer: str | None, forwarded: list[str], caller: str | None) -> None:
    assert caller_address(peer, forwarded, PROXIES) == caller


@given(st.lists(st.text(max_size=40), max_size=4))
def test_without_proxies_no_header_says_anything(forwarded: list[str]) -> None:
    assert caller_address("192.0.2.1", forwarded, ()) == "192.0.2.1"


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or parse_address(str(address)) == address
