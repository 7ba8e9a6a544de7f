"""The connection to the replicas behind a gRPC target: spread, watched, and replaced in use.

What gRPC does: it resolves the target, connects to every address, and gives each call to one of
them. What it lacks in Python are certificates that change while a channel is open: then a new
channel takes over, and the old one is closed after its last call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from imagesafety.v1 import scoring_pb2, scoring_pb2_grpc

LOOK_SECONDS = 1.0  # how often certificate files are looked at, while there are calls
CONNECT_SECONDS = 10.0  # how long a channel with new certificates may take to connect

SERVICE_NAME = scoring_pb2.DESCRIPTOR.services_by_name["ScoringService"].full_name

# Every replica reports its load once a second, beside the calls, and gets calls in proportion to
# what it can bear (https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md);
# as long as none does, all get the same. Those are left out that say by the health service that
# they can't score now (https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md).
_SERVICE_CONFIG = {
    "loadBalancingConfig": [
        {
            "weighted_round_robin": {
                "enableOobLoadReport": True,
                "oobReportingPeriod": "1s",
                # It would begin anew for all replicas whenever a name is resolved.
                "blackoutPeriod": "0s",
                # Reports without answers don't renew a weight: one that is full and gets few calls
                # must not come to be unknown between two of them.
                "weightExpirationPeriod": "30s",
                "weightUpdatePeriod": "1s",
                "errorUtilizationPenalty": 1.0,
            }
        },
        {"round_robin": {}},
    ],
    "healthCheckConfig": {"serviceName": SERVICE_NAME},
}

# A replica that hangs is noticed within 4 s: without ping_timeout_ms it takes a minute.
# Reconnecting begins quickly, so that a restarted replica is used again at once; and names are
# resolved as often as connections end, which finds new replicas: gRPC's own pause is 30 s.
_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.service_config_disable_resolution", 1),  # a TXT record would replace ours
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 4_000),  # also how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),  # a channel with new certificates connects with them
)

FileStates = tuple[tuple[int, int, int] | None, ...]
"""Of each file what changes with it: inode, time and size; None if it can't be had."""

log = logging.getLogger("imagesafety")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: `ca` to trust, and `certificate` with `key` to show where the service asks."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises OSError for one that can't be used."""
        # gRPC would take anything here, and fail every call later.
        try:
            check = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                # Without a password, OpenSSL would ask for one at a terminal.
                check.load_cert_chain(self.certificate, self.key, password="")
        except OSError as error:
            files = ", ".join(str(f) for f in (self.ca, self.certificate, self.key) if f)
            raise OSError(f"TLS files can't be used ({files}): {error}") from error
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.read_bytes(),
            private_key=self.key.read_bytes() if self.key else None,
            certificate_chain=self.certificate.read_bytes() if self.certificate else None,
        )

    def state(self) -> FileStates:
        """Something that is different once a file was changed or replaced."""
        return tuple(_file_state(path) for path in (self.ca, self.certificate, self.key) if path)


def _file_state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


class _Connection:
    """A gRPC channel with the calls that it has."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.channel = (
            grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)
        )
        self.stub = scoring_pb2_grpc.ScoringServiceStub(self.channel)
        self._calls = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[scoring_pb2_grpc.ScoringServiceAsyncStub]:
        """For as long as a call takes."""
        self._calls += 1
        self._unused.clear()
        try:
            yield self.stub
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._unused.set()

    async def close_after_calls(self) -> None:
        """Closes the channel when its last call is over."""
        await self._unused.wait()
        await self.channel.close()


class ReplicaChannel:
    """Calls replicas at any gRPC target, under the certificates that are in the files now."""

    def __init__(self, target: str, tls: TlsFiles | None) -> None:
        """Raises OSError for TLS files that can't be used."""
        self._target, self._tls = target, tls
        self._seen = tls.state() if tls is not None else ()
        self._current = _Connection(target, tls.credentials() if tls is not None else None)
        self._looked_at = time.monotonic()
        self._warned_of: FileStates | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def stub(self) -> Iterator[scoring_pb2_grpc.ScoringServiceAsyncStub]:
        """What to make a call with, for as long as the call takes."""
        now = time.monotonic()
        if self._tls is not None and now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            if self._replacing is None and self._tls.state() != self._seen:
                self._replacing = asyncio.create_task(self._replace(self._tls))
        with self._current.in_use() as stub:
            yield stub

    async def close(self) -> None:
        """Ends calls that still run and closes the connections."""
        waiting = [*self._retired, *([self._replacing] if self._replacing is not None else [])]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._current.channel.close()

    async def _replace(self, tls: TlsFiles) -> None:
        """Makes a channel with changed files current, if it connects; else the old one stays."""
        try:
            seen = tls.state()
            try:
                credentials = tls.credentials()
            except OSError as error:  # perhaps only one of the files is new yet
                self._warn_of(seen, str(error))
                return
            if tls.state() != seen:
                return  # changed while they were read: to be read again
            fresh = _Connection(self._target, credentials)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await fresh.channel.channel_ready()
            except TimeoutError:
                self._warn_of(seen, "no replica can be connected to with the changed ones")
                await fresh.channel.close()
                return
            except asyncio.CancelledError:
                await fresh.channel.close()
                raise
            self._seen = seen
            old, self._current = self._current, fresh
            task = asyncio.create_task(self._retire(old))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)
            log.info("the connections use the changed certificates")
        finally:
            self._replacing = None

    def _warn_of(self, files: FileStates, reason: str) -> None:
        """Tells once for each change of the files why it is not taken yet."""
        if self._warned_of != files:
            self._warned_of = files
            log.warning("the old certificates stay in use: %s", reason)

    async def _retire(self, old: _Connection) -> None:
        try:
            await old.close_after_calls()
        except asyncio.CancelledError:
            await old.channel.close()
            raise
