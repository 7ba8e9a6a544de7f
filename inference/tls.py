"""The server's certificate, and the CA of its clients: read anew when the files change."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

_RETRY_SECONDS = 1.0

log = logging.getLogger("inference")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: what to show, and whose clients may call (without a CA: anybody's)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that there are."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files. Raises OSError for files that can't be used now.

    gRPC asks before each handshake, so open connections go on with what they began with.
    """
    reader = _Reader(files)
    return grpc.dynamic_ssl_server_credentials(
        reader.first(),
        reader.changed,  # type: ignore[arg-type]  # may be None, as gRPC's documentation says
        require_client_authentication=files.client_ca is not None,
    )


class _Reader:
    """Reads the files when one of them is another than it was, or lies elsewhere."""

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._seen: object = None
        self._refused: object = None  # what was warned of
        self._retry_at = 0.0
        self._lock = threading.Lock()  # gRPC calls from threads of its own

    def first(self) -> grpc.ServerCertificateConfiguration:
        """What the files hold. Raises OSError."""
        self._seen = self._look()
        return self._configuration()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files hold, if they were changed and fit together; else None.

        What does not is warned of once, and tried again each second: what keeps a file from being
        read may pass without a change to it. Until then the old files stay in force.
        """
        with self._lock:
            found: object = None
            try:
                # Before they are read: a change in between is then found the next time.
                found = self._look()
                if found == self._seen:
                    return None
                if found == self._refused and self._clock() < self._retry_at:
                    return None
                configuration = self._configuration()
            except OSError as error:
                self._refuse(found if found is not None else str(error), error)
                return None
            self._seen, self._refused = found, None
            log.info("new TLS files are in force: %s", self._files.certificate)
            return configuration

    def _refuse(self, found: object, error: OSError) -> None:
        self._retry_at = self._clock() + _RETRY_SECONDS
        if found != self._refused:
            self._refused = found
            log.warning("the old TLS files stay in force: %s", error)

    def _look(self) -> list[tuple[int, int, int]]:
        looks = [path.stat() for path in self._files.paths]
        return [(look.st_mtime_ns, look.st_size, look.st_ino) for look in looks]

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        try:
            contents = self._read()
            # gRPC would take anything here, and refuse every connection later.
            check = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            check.load_cert_chain(files.certificate, files.key, password="")  # asks nobody for one
            if files.client_ca is not None:
                check.load_verify_locations(files.client_ca)
            if contents != self._read():
                raise OSError("they change while they are read")
        except OSError as error:
            names = ", ".join(map(str, files.paths))
            raise OSError(f"TLS files can't be used ({names}): {error}") from error
        certificate, key, *client_ca = contents
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=client_ca[0] if client_ca else None
        )

    def _read(self) -> list[bytes]:
        return [path.read_bytes() for path in self._files.paths]
