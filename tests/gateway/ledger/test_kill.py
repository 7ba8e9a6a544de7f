"""kill -9 at random moments: what was told to be stored is there, once."""

import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from gateway.ledger.database import migrate, open_engine, sqlite_url
from tests.gateway.ledger.records import drained, ids_in, running_ledger, spool_files

KILLS = 10


def ids_of_a_killed_process(url: str, spool: Path, lines: int, *, locked_after: int) -> list[str]:
    """Runs the recorder, and kills it after so many lines; the ids that it printed.

    After `locked_after` lines somebody else locks the database, if it is SQLite.
    """
    command = [sys.executable, "-m", "tests.gateway.ledger.recorder", url, str(spool), "8"]
    sqlite_file = make_url(url).database if url.startswith("sqlite") else None
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        closing(sqlite3.connect(sqlite_file or ":memory:", isolation_level=None)) as stranger,
    ):
        assert process.stdout is not None
        printed = []
        for number in range(lines):
            if number == locked_after:
                stranger.execute("BEGIN IMMEDIATE")
            printed.append(process.stdout.readline())
        process.kill()
        printed += process.stdout.readlines()
    assert all(line.endswith(b"\n") for line in printed)
    return [line.decode().strip() for line in printed]


async def test_nothing_is_missing_or_doubled_after_kills(url: str, tmp_path: Path) -> None:
    await check_kills(url, tmp_path / "spool", locks=False)


async def test_nothing_is_missing_or_doubled_after_kills_with_a_full_spool(tmp_path: Path) -> None:
    await check_kills(sqlite_url(tmp_path / "ledger.db"), tmp_path / "spool", locks=True)


async def check_kills(url: str, spool: Path, *, locks: bool) -> None:
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
    dice = random.Random(5)
    told: list[str] = []
    spooled = 0
    for _ in range(KILLS):
        lines = dice.randint(1, 300)
        locked_after = dice.randint(0, lines) if locks else lines
        told += ids_of_a_killed_process(url, spool, lines, locked_after=locked_after)
        spooled += len(spool_files(spool))
    assert spooled or not locks
    async with running_ledger(url, spool) as ledger:
        await drained(ledger, spool)
    found = ids_in(url)
    assert len(found) == len(set(found))
    assert set(told) <= set(found)
