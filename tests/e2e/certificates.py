"""Certificates for 127.0.0.1, made when they are needed."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Authority:
    """A CA."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def named(cls, name: str) -> Authority:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_certificate(name, key, None, key), key)

    def issue(self, folder: Path, name: str) -> None:
        """Writes NAME.pem and NAME.key."""
        own = ec.generate_private_key(ec.SECP256R1())
        write(folder, name, _certificate(name, own, self.certificate, self.key), own)

    def write(self, folder: Path, name: str) -> None:
        """Writes the CA's own NAME.pem and NAME.key."""
        write(folder, name, self.certificate, self.key)


def write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    """Writes both files."""
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, form, plain))


class Secret:
    """A folder whose files are swapped all at once, as Kubernetes does with those of a Secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = 0

    def swap(self, authority: Authority, client_authority: Authority, name: str) -> None:
        """Now has server.pem and server.key of one CA, and ca.pem of the one of clients."""
        self._versions += 1
        version = self.folder / f"..{self._versions}"
        version.mkdir(parents=True)
        authority.issue(version, name)
        for suffix in ("pem", "key"):
            (version / f"{name}.{suffix}").rename(version / f"server.{suffix}")
        client_authority.write(version, "ca")
        self.point(version)

    def point(self, version: Path) -> None:
        """Makes the files those of a folder."""
        fresh = self.folder / "..new"
        fresh.symlink_to(version.name)
        os.replace(fresh, self.folder / "..data")  # noqa: PTH105
        for name in ("server.pem", "server.key", "ca.pem"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
