"""Who may ask: earlier tools let some of the refused in, and refused some of the others."""

import pytest

from gateway.clients import authenticate
from gateway.settings import load_settings

SETTINGS = load_settings(["--client-secrets", "lemmy:0123456789abcdef,other:fedcba9876543210"])


def client(client_id: str, peer: str | None) -> str | None:
    return authenticate(client_id, peer, SETTINGS.networks, SETTINGS.secrets)


IPV4 = ("127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1")
IPV6 = ("::1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1")
PUBLIC = ("100.0.0.1", "109.255.0.1", "172.15.0.1", "172.32.0.1", "192.169.0.1", "8.8.8.8")
OTHERS = ("2001:db8::1", "::ffff:8.8.8.8", "10.evil.example", "", None)


@pytest.mark.parametrize("peer", [*IPV4, *IPV6])
def test_loopback_and_private_addresses_may_ask(peer: str) -> None:
    assert client("IPADDR", peer) == "IPADDR"


@pytest.mark.parametrize("peer", [*PUBLIC, *OTHERS])
def test_others_may_not(peer: str | None) -> None:
    assert client("IPADDR", peer) is None


def test_a_secret_opens_from_anywhere_and_names_its_client() -> None:
    assert client("0123456789abcdef", "8.8.8.8") == "lemmy"
    assert client("fedcba9876543210", None) == "other"


@pytest.mark.parametrize("wrong", ["0123456789abcde", "lemmy", "ipaddr", "", "é\udcff"])
def test_a_wrong_secret_does_not_open(wrong: str) -> None:
    assert client(wrong, "127.0.0.1") is None
