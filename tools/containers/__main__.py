"""`make containers`: build the images, play with them, and print a table.

The exit status is 1 when something required did not hold, and 0 where no engine is to be had.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import httpx

from tools.containers import plays
from tools.containers.engine import CommandError, Engine, NoEngineError, engine
from tools.containers.images import build_all, pict_rs_image
from tools.containers.plays import Row
from tools.containers.stack import NotInTimeError, Stack
from tools.real_pict_rs import cache_folder

Play = Callable[[Stack], Row]
BESIDE_LEMMY: dict[str, Play] = {
    "shipped": plays.first_uploads,
    "name": plays.by_name,
    "strangers": plays.strangers,
    "commands": plays.commands,
    "scan": plays.scans,
    "killed": plays.killed,
    "frozen": plays.frozen,
    "cut-off": plays.cut_off,
    "replicas": plays.replicas,
    "gateway": plays.gateway_restarted,
    "recreated": plays.recreated,
    "memory": partial(plays.short_of_memory, service="inference", limit="300m", required=""),
    "stop": plays.stopped,
}
ALL_IN_ONE: dict[str, Play] = {
    "all-in-one": plays.all_in_one,
    "all-in-one-memory": partial(
        plays.short_of_memory, service="pictrs-safety", limit="400m", required="for want of memory"
    ),
    "all-in-one-stop": plays.stopped,
}
_STARTS = {"shipped", "all-in-one"}  # start the project themselves
_HEAD = ("what", "uploads", "failed", "unscanned", "missed", "")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    cells = [
        (
            row.what,
            str(row.uploads or ""),
            str(row.failed) if row.uploads else "",
            str(row.unscanned) if row.uploads else "",
            "; ".join(part.splitlines()[0] for part in row.missed) or "nothing",
            row.note,
        )
        for row in rows
    ]
    lines = [_HEAD, tuple("---" for _ in _HEAD), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def play(stack: Stack, chosen: dict[str, Play], rows: list[Row]) -> None:
    """Play with one project, and remove it."""
    try:
        plays.configure(stack)
        if not _STARTS & chosen.keys():
            stack.up()
        for name, one in chosen.items():
            begun = time.monotonic()
            try:
                row = one(stack)
            except (CommandError, NotInTimeError, httpx.HTTPError) as error:
                row = Row(name, missed=[str(error) or type(error).__name__])
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
            for text in row.missed:
                print(f"  MISSED: {text}", flush=True)
            rows.append(row)
    finally:
        plays.clean(stack)


def run(engine: Engine, names: Sequence[str]) -> int:
    """Build and play; the exit code."""
    rows: list[Row] = []
    begun = time.monotonic()
    for tag, size in build_all(engine):
        seconds, begun = time.monotonic() - begun, time.monotonic()
        print(f"{tag}: built in {seconds:.0f} s, {size}", flush=True)
        rows.append(Row(f"`{tag}` built", note=f"{seconds:.0f} s, {size}"))
    pict_rs = pict_rs_image(engine)
    for shipped, gateway, all_plays in (
        ("compose.imagesafety.yml", "imagesafety", BESIDE_LEMMY),
        ("compose.pictrs-safety.yml", "pictrs-safety", ALL_IN_ONE),
    ):
        chosen = {name: one for name, one in all_plays.items() if not names or name in names}
        if chosen:
            folder = Path(tempfile.mkdtemp(prefix="imagesafety-"))
            play(Stack(engine, folder, shipped, pict_rs, gateway), chosen, rows)
    print(f"\n{table(rows)}")
    return 1 if any(row.missed for row in rows) else 0


def main() -> int:
    """Run what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="make containers", description=__doc__)
    known = [*BESIDE_LEMMY, *ALL_IN_ONE]
    parser.add_argument("plays", nargs="*", metavar="PLAY", help=f"of {', '.join(known)}")
    names = parser.parse_args().plays
    if unknown := set(names) - set(known):
        parser.error(f"unknown plays: {', '.join(sorted(unknown))}")
    # So that projects and an engine of our own are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with engine(cache_folder().parent) as found:
            return run(found, names)
    except NoEngineError as error:
        print(f"containers: not played: {error}")
        return 0
    except CommandError as error:
        print(f"containers: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
