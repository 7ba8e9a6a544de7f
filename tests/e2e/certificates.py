"""Files of certificates for 127.0.0.1, made when they are needed."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.rehearsal.certificates import Authority


def write_issued(authority: Authority, folder: Path, name: str) -> None:
    """Writes NAME.pem and NAME.key of a CA's."""
    pair = authority.issue(name, ("127.0.0.1",))
    (folder / f"{name}.pem").write_bytes(pair.certificate)
    (folder / f"{name}.key").write_bytes(pair.key)


def write_authority(authority: Authority, folder: Path, name: str) -> None:
    """Writes NAME.pem, by which the CA is trusted."""
    (folder / f"{name}.pem").write_bytes(authority.pem)


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
        write_issued(authority, version, name)
        for suffix in ("pem", "key"):
            (version / f"{name}.{suffix}").rename(version / f"server.{suffix}")
        write_authority(client_authority, version, "ca")
        self.point(version)

    def point(self, version: Path) -> None:
        """Makes the files those of a folder."""
        fresh = self.folder / "..new"
        fresh.symlink_to(version.name)
        os.replace(fresh, self.folder / "..data")  # noqa: PTH105
        for name in ("server.pem", "server.key", "ca.pem"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
