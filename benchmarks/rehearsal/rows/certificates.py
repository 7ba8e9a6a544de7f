"""mTLS between the services, and all certificates replaced under load, their authority too."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from benchmarks.rehearsal.certificates import Authority, TlsFolder
from benchmarks.rehearsal.fleet import Fleet, is_serving
from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.rows.outcome import (
    history_lines,
    latency_lines,
    load_line,
    unscanned_line,
)
from benchmarks.rehearsal.stage import NAME, Plan, Stage, stage
from benchmarks.rehearsal.table import Line, told

ROW = "certificates"
REPLICAS = 2
_ADDRESSES = [f"127.0.1.{number}" for number in range(1, REPLICAS + 2)]


async def certificates(options: Options) -> list[Line]:
    """The row: both trust both authorities, show the new ones, and then trust only the new one."""
    pause = options.of(40.0) / 5
    old, new = Authority("old"), Authority("new")
    with tempfile.TemporaryDirectory() as folder:
        server, client, prober = (
            TlsFolder(Path(folder) / name) for name in ("inference", "gateway", "prober")
        )
        for files in (server, client):
            files.trust(old)
        server.show(old.issue(NAME, _ADDRESSES))
        client.show(old.issue("gateway.rehearsal"))
        prober.trust(new)
        prober.show(new.issue("prober.rehearsal"))
        async with stage(Plan(replicas=REPLICAS, tls=(server, client))) as it:
            async with it.load():
                await asyncio.sleep(pause)
                for files in (server, client):
                    files.trust(old, new)
                await asyncio.sleep(pause)
                server.show(new.issue(NAME, _ADDRESSES))
                client.show(new.issue("gateway.rehearsal"))
                await asyncio.sleep(pause)
                for files in (server, client):
                    files.trust(new)
                await asyncio.sleep(pause)
                rotated = await asyncio.to_thread(_that_show_new, it.fleet, prober)
                await _renew_one(it)
                await asyncio.sleep(pause)
                share = it.shares.share(it.fleet.replicas[-1].host, pause / 2)
            verdict = it.judged()
            measured = f"{rotated} of {REPLICAS}"
            met = rotated == REPLICAS
            took_part = "a replica that trusts and shows only new ones gets work"
            return [
                load_line(ROW, it),
                told(ROW, "replaced", "bundles of both, certificates and keys of both, bundles"),
                *history_lines(ROW, verdict),
                unscanned_line(ROW, it, verdict),
                Line(ROW, "replicas that show and take new ones", "all", measured, met),
                Line(ROW, took_part, "yes", f"{share:.0%} of it", share > 0.1),
                *latency_lines(ROW, it),
            ]


def _that_show_new(fleet: Fleet, prober: TlsFolder) -> int:
    """How many replicas let in who trusts only the new authority and shows a certificate of it."""
    return sum(is_serving(replica.service.address, prober) for replica in fleet.replicas)


async def _renew_one(it: Stage) -> None:
    """A new process in place of a replica: the gateway has to make a connection anew."""
    first, *others = it.fleet.replicas
    new = await it.start_replica()
    it.publish(*others, new)
    await asyncio.to_thread(first.stop)
