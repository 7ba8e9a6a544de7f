"""`imagesafety scan PLACE`: looks at what is already in store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imagesafety.command.quarantine import add_quarantine_options
from imagesafety.command.service_options import add_service_options
from imagesafety.command.subcommands import Commands

ADMIN_TOKEN = "IMAGESAFETY_ADMIN_TOKEN"  # noqa: S105 - the variable's name
PICT_RS_KEY = "IMAGESAFETY_PICT_RS_API_KEY"  # the variable's name

_DESCRIPTION = """\
Goes through the files that are stored in PLACE and tells which of them the policy rejects. Nothing
is touched unless --action and --yes are given. It may be interrupted at any time: what was looked
at is kept in a state file, and the same command goes on. Uploads go first at the service.

PLACE is one of

  /path/to/folder            of this machine; links are not followed
  s3://BUCKET/PREFIX         keys as the AWS tools take them; for others than Amazon
                             --storage-option endpoint_url=https://…
  sftp://USER@HOST/PATH      the host's key has to be in ~/.ssh/known_hosts, or in the file
                             --storage-option known_hosts=FILE
  pict-rs+http://HOST:PORT   pict-rs itself, through its internal API (pict-rs+https:// too)

Files that pict-rs keeps in a folder or a bucket should be scanned through pict-rs, and be purged:
of what is deleted behind its back, it goes on to list the aliases."""

_EPILOG = """\
An unreadable file is never a hit: what can't be looked at is listed, with its reason, and left
alone. So is a file that was changed since it was looked at. Exits with 0 if all could be looked at,
broken files included, with 1 if something failed that may work another time, and with 2 for what
can't be meant."""


def add_to(commands: Commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "scan",
        help="look at what is already in store: a folder, S3, SFTP, pict-rs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("place", metavar="PLACE", help="what to scan; see above")
    parser.add_argument(
        "--policy", default="demo", help="policy file, or a shipped one's name (demo)"
    )
    add_service_options(parser)
    parser.add_argument(
        "--overrides",
        metavar="FILE|URL|none",
        help="CSV that the admin pages export, or the gateway's admin address, which is asked in "
        f"each round, with the token in {ADMIN_TOKEN}; --yes needs it, or none",
    )
    _add_what(parser)
    _add_how(parser)
    add_quarantine_options(parser)
    parser.set_defaults(run=run)


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        help="only files of this time: a number with m, h, d or w; with --every, and those since "
        "the last complete round",
    )
    parser.add_argument("--prefix", default="", help="only files whose names begin so")
    parser.add_argument("--limit", type=int, metavar="N", help="look at no more than N files")
    parser.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of s3fs or of asyncssh's connect; FSSPEC_S3_… and FSSPEC_SSH_… variables too",
    )
    parser.add_argument(
        "--pict-rs-api-key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the API key of pict-rs; else the variable {PICT_RS_KEY} is used",
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--action",
        choices=("report", "purge", "delete", "quarantine"),
        default="report",
        help="what to do with hits (report); purge is for pict-rs, delete for all else",
    )
    parser.add_argument("--yes", action="store_true", help="do it; else it is only said")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write hits and problems here, as JSON lines"
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="what was looked at (below ~/.local/share/imagesafety/scans, named by PLACE)",
    )
    parser.add_argument("--every", metavar="TIME", help="go on, and begin again after 30m, 1h, 1d…")
    parser.add_argument("--verbose", action="store_true", help="list what is no media, too")


def run(options: argparse.Namespace) -> int:
    """Scans; the exit code is as --help says."""
    try:
        from imagesafety.command import scan_run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("imagesafety"):
            raise
        print("imagesafety: scan needs `pip install 'imagesafety[scan]'`", file=sys.stderr)
        return 2
    return scan_run.run(options)
