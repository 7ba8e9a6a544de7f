"""`imagesafety policy replay NEW.toml`: what another policy would have made of recent decisions."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from imagesafety.admin_client import AdminApi, AdminApiError
from imagesafety.command.subcommands import Commands
from imagesafety.policy_file import PolicyError, find_policy, load_policy
from imagesafety.recorded import RecordedStreamError
from imagesafety.replay import replay
from imagesafety.replay_report import (
    Flip,
    ReplayReport,
    counted,
    different_files,
    report_content,
    rule_of,
)
from imagesafety.since import parse_period

ADMIN = "IMAGESAFETY_ADMIN"
TOKEN = "IMAGESAFETY_ADMIN_TOKEN"  # noqa: S105 - the variable's name
SHOWN = 20  # files of each change


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "replay",
        help="say what a changed policy would have made of recorded decisions",
        description="Judges the recorded similarities of a running gateway by another policy and "
        "prints which decisions would flip. Nothing changes in the gateway. Exits with 0 if the "
        "decisions could be read, whatever flips.",
    )
    parser.add_argument("file", help="the new policy file, or the name of one that ships with us")
    parser.add_argument(
        "--since", default="7d", help="how far back: a number with m, h, d or w (7d)"
    )
    parser.add_argument(
        "--admin",
        default=os.environ.get(ADMIN, "http://127.0.0.1:14052"),
        help=f"the gateway's admin address (the variable {ADMIN}, or http://127.0.0.1:14052)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help=f"file with the gateway's admin token; else the variable {TOKEN} is used",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with every flip")
    parser.add_argument("--all", action="store_true", help=f"list more than {SHOWN} files a change")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replays; 2 for what can't be meant, 1 where the gateway doesn't give its decisions."""
    try:
        new = load_policy(find_policy(options.file))
        parse_period(options.since)
        api = AdminApi(options.admin, _token(options.token_file))
    except (PolicyError, OSError, ValueError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 2
    try:
        with api.recorded(options.since) as stream:
            report = replay(
                new, stream, stream.policies, accepts_undecodable=stream.accepts_undecodable
            )
    except (AdminApiError, RecordedStreamError) as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report_content(report)))
    else:
        print("\n".join(_lines(report, options.since, None if options.all else SHOWN)))
    return 0


def _token(file: Path | None) -> str:
    """Raises OSError or ValueError."""
    if file is None:
        return os.environ.get(TOKEN, "").strip()
    token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"{file}: there is no token in it")
    return token


def _lines(report: ReplayReport, since: str, shown: int | None) -> Iterator[str]:
    yield f"{report.total} decisions with scores since {since}, {report.comparable} comparable"
    for reason, count in report.not_comparable.items():
        yield f"  {count} not comparable: {reason}"
    if report.approximate:
        yield (
            f"  {report.approximate} at most are approximate: the new policy looks closer at other "
            "places, whose scores nobody has"
        )
    if report.kept_by_override:
        yield f"  {report.kept_by_override} were decided by an override, which stays"
    if not report.flips:
        yield "no decision would flip"
        return
    yield f"{len(report.flips)} would flip, of {different_files(report.flips)} different files"
    yield f"  {report.corrected} of them an override has corrected already"
    yield f"  {report.overridden} of them an override forbids, which stays in force"
    for change, flips in report.by_change().items():
        yield ""
        yield f"{change}: {len(flips)}"
        yield f"  by rule    {_counts(counted(flips, rule_of))}"
        yield f"  by client  {_counts(counted(flips, lambda flip: flip.client))}"
        yield from _files(flips, shown)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _files(flips: list[Flip], shown: int | None) -> Iterator[str]:
    """A line for each file: its hash, how often it came, and the last decision on it."""
    files: dict[str, list[Flip]] = {}
    for flip in flips:
        files.setdefault(flip.sha256 or flip.id, []).append(flip)
    for same in list(files.values())[:shown]:
        last = same[-1]
        note = ", corrected" * last.corrected + ", against an override" * last.overridden
        times = f"{len(same)}×, last" if len(same) > 1 else "decision"
        yield f"  {last.sha256 or 'no hash':<64}  {times} {last.id}, {rule_of(last)}{note}"
    if shown is not None and len(files) > shown:
        yield f"  and {len(files) - shown} more files: --all lists them"
