"""Plays failures with real processes under load: `make rehearse`, `make rehearse ROW=kill`.

Prints a table; the exit code is 1 when a row misses what is required of it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence

import uvloop

from benchmarks.rehearsal.foreign_load import foreign_share, moment
from benchmarks.rehearsal.rows.certificates import certificates
from benchmarks.rehearsal.rows.fair import fair
from benchmarks.rehearsal.rows.kill import kill
from benchmarks.rehearsal.rows.options import Options
from benchmarks.rehearsal.rows.overload import overload
from benchmarks.rehearsal.rows.rolling import rolling
from benchmarks.rehearsal.rows.scale import scale
from benchmarks.rehearsal.rows.soak import soak
from benchmarks.rehearsal.rows.trouble import exhausted, hang, slow
from benchmarks.rehearsal.table import Line, table, told
from benchmarks.serving.command import run
from benchmarks.serving.processes import BenchmarkError
from benchmarks.serving.report import RESULTS

Play = Callable[[Options], Awaitable[list[Line]]]
ROWS: dict[str, Play] = {
    "kill": kill,
    "rolling": rolling,
    "hang": hang,
    "slow": slow,
    "exhausted": exhausted,
    "overload": overload,
    "fair": fair,
    "scale": scale,
    "certificates": certificates,
    "soak": soak,
}


def rehearse(names: Sequence[str], options: Options) -> int:
    """Plays the rows one after the other; the exit code."""
    lines: list[Line] = []
    for name in names:
        print(f"{name} …", flush=True)
        begin = moment()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                played = runner.run(_played(ROWS[name], options))
        except BenchmarkError as error:
            played = [Line(name, "the row was played", "yes", str(error).splitlines()[0], False)]
            print(f"{name}: {error}", file=sys.stderr)
        end = moment()
        others = foreign_share(begin, end)
        played.append(told(name, "others took of the machine's processors", f"{others:.0%}"))
        print(f"{table(played)}\n{name}: {end.at - begin.at:.0f} s\n", flush=True)
        lines += played
    missed = sorted({line.row for line in lines if line.met is False})
    if len(names) > 1:
        print(table(lines))
    print(f"rows missed: {', '.join(missed) or 'none'}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rehearsal.md").write_text(table(lines) + "\n")
    return 1 if missed else 0


async def _played(row: Play, options: Options) -> list[Line]:
    try:
        return await row(options)
    except BaseExceptionGroup as group:  # of a task group somewhere in it
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from group


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rehearsal", description=__doc__)
    parser.add_argument(
        "--row", default="", help=f"some of {', '.join(ROWS)}, separated by commas; all without"
    )
    parser.add_argument(
        "--seconds", type=float, default=None, help="how long the load of a row goes on, roughly"
    )
    chosen = parser.parse_args(arguments)
    names = [name for part in chosen.row.split(",") if (name := part.strip())] or list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return run(lambda: rehearse(names, Options(chosen.seconds)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
