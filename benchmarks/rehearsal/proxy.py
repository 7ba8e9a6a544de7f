"""A TCP proxy before several gateways: Debian's haproxy, with health checks on /readyz."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.serving.processes import BenchmarkError, Service, listens, running

CHECK_MILLISECONDS = 200


def configuration(listen: str, gateways: Sequence[str]) -> str:
    """The file for haproxy. Connections that can't be made go to another gateway."""
    servers = [
        f"    server gateway{number} {address} check inter {CHECK_MILLISECONDS} fall 1 rise 1"
        for number, address in enumerate(gateways, 1)
    ]
    return "\n".join(
        [
            "defaults",
            "    mode tcp",
            "    timeout connect 2s",
            "    timeout client 120s",
            "    timeout server 120s",
            "    retries 3",
            "    option redispatch 1",
            "listen gateways",
            f"    bind {listen}",
            "    balance roundrobin",
            "    option httpchk GET /readyz",
            "    http-check expect status 200",
            *servers,
            "",
        ]
    )


@contextlib.contextmanager
def proxy(listen: str, gateways: Sequence[str]) -> Iterator[Service]:
    """Runs haproxy before these gateways. Raises BenchmarkError where it is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise BenchmarkError("haproxy is not installed: apt-get install haproxy")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "haproxy.cfg"
        path.write_text(configuration(listen, gateways))
        with running("haproxy", [program, "-db", "-f", str(path)], listen, listens) as service:
            yield service
