"""A real S3 server and a real SFTP server on loopback ports."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh
import boto3
import httpx
from moto.server import ThreadedMotoServer

BUCKET = "media"
CREDENTIALS = {"key": "a key", "secret": "a secret"}


@dataclass(frozen=True)
class S3Server:
    url: str
    client: Any

    @property
    def options(self) -> dict[str, str]:
        return {"endpoint_url": self.url, **CREDENTIALS}

    def names(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {entry["Key"] for page in pages for entry in page.get("Contents", ())}


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        httpx.post(f"{url}/moto-api/reset")  # servers of one process have the same buckets
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["key"],
            aws_secret_access_key=CREDENTIALS["secret"],
        )
        client.create_bucket(Bucket=BUCKET)
        yield S3Server(url, client)
        client.close()
    finally:
        server.stop()


@dataclass
class SftpServer:
    """Serves what is below `root`; `known_hosts` has its key, `client_key` lets one in."""

    root: Path
    port: int
    known_hosts: Path
    client_key: Path
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop | None = None

    def url(self, path: str = "/") -> str:
        return f"sftp://somebody@127.0.0.1:{self.port}{path}"

    @property
    def options(self) -> dict[str, str]:
        return {"known_hosts": str(self.known_hosts), "client_keys": str(self.client_key)}

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Answers nothing, as after SIGSTOP: its connections stay."""
        assert self._loop is not None
        going_on, stopped = threading.Event(), threading.Event()

        def stop() -> None:
            stopped.set()
            going_on.wait()

        self._loop.call_soon_threadsafe(stop)
        stopped.wait(20)
        try:
            yield
        finally:
            going_on.set()

    def break_connections(self) -> None:
        assert self._loop is not None
        for connection in self.connections:
            self._loop.call_soon_threadsafe(connection.abort)
        self.connections.clear()


class _Chrooted(asyncssh.SFTPServer):
    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], root: Path) -> None:
        super().__init__(channel, chroot=str(root).encode())


class _Server(asyncssh.SSHServer):
    def __init__(self, made: list[asyncssh.SSHServerConnection]) -> None:
        self._made = made

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._made.append(conn)


@contextlib.contextmanager
def sftp_server(folder: Path) -> Iterator[SftpServer]:
    """Keeps its keys in `folder`, and serves the folder `root` in it."""
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    host_key, client_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    client_key.write_private_key(str(folder / "client_key"))
    client_key.write_public_key(str(folder / "authorized_keys"))
    server = SftpServer(root, 0, folder / "known_hosts", folder / "client_key")
    loop = asyncio.new_event_loop()
    server._loop = loop
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=partial(_Server, server.connections),
            server_host_keys=[host_key],
            authorized_client_keys=str(folder / "authorized_keys"),
            sftp_factory=partial(_Chrooted, root=root),
        )

    async def close(acceptor: asyncssh.SSHAcceptor) -> None:
        for connection in server.connections:
            connection.abort()
        acceptor.close()
        await acceptor.wait_closed()

    acceptor = asyncio.run_coroutine_threadsafe(listen(), loop).result(20)
    server.port = acceptor.get_port()
    public = host_key.export_public_key().decode().strip()
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public}\n")
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(close(acceptor), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
