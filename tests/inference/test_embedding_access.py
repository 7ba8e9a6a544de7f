"""Who gets embeddings."""

import pytest

from inference.embedding_access import may_have_embeddings

VERIFIED = {"x509_pem_cert": [b"-----BEGIN"], "transport_security_type": [b"ssl"]}


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:50000", True),
        ("ipv4:127.8.0.1:50000", True),
        ("ipv6:%5B::1%5D:50000", True),
        ("ipv6:[::1]:50000", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:50000", True),
        ("unix:/run/socket", True),
        ("unix:", True),
        ("unix-abstract:name", True),
        ("ipv4:10.0.0.1:50000", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", False),
        ("ipv6:%5B::ffff:10.0.0.1%5D:50000", False),
        ("ipv4:127.0.0.1.example:50000", False),
        ("dns:localhost:50000", False),
        ("", False),
    ],
)
def test_clients_on_this_machine_get_embeddings_and_others_by_certificate(
    peer: str, local: bool
) -> None:
    assert may_have_embeddings("auto", peer, {}) is local
    assert may_have_embeddings("auto", peer, {"transport_security_type": [b"ssl"]}) is local
    assert may_have_embeddings("auto", peer, VERIFIED)


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:50000", "ipv4:10.0.0.1:50000", ""])
def test_a_setting_may_give_them_to_all_or_none(peer: str) -> None:
    for known in ({}, VERIFIED):
        assert may_have_embeddings("always", peer, known)
        assert not may_have_embeddings("never", peer, known)
