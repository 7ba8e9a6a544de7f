"""`imagesafety quarantine …`: a key for the files in quarantine, and the way back."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from imagesafety.command.subcommands import Commands


def add_quarantine_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Adds the options that say where the quarantine is."""
    parser.add_argument(
        "--quarantine",
        metavar="URL",
        required=required,
        help="where hits are moved to: a folder, s3://…, sftp://…",
    )
    parser.add_argument(
        "--quarantine-key",
        type=Path,
        metavar="FILE",
        required=required,
        help="the key that they are sealed with: `imagesafety quarantine key FILE` makes one",
    )
    parser.add_argument(
        "--quarantine-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="as --storage-option, for the quarantine",
    )


def add_to(commands: Commands) -> None:
    """Adds the commands to the parser."""
    parser = commands.add_parser("quarantine", help="work with files that a scan put away")
    kinds = parser.add_subparsers(required=True, metavar="COMMAND")
    key = kinds.add_parser("key", help="make a key", description="Makes a key in a new file.")
    key.add_argument("file", type=Path, metavar="FILE")
    key.set_defaults(run=run_key)
    restore = kinds.add_parser(
        "restore",
        help="bring a file back",
        description="Writes a file that is in quarantine to a new file. It stays in quarantine.",
    )
    restore.add_argument("name", metavar="NAME", help="the file's SHA-256, as it is named there")
    restore.add_argument("--to", type=Path, metavar="PATH", required=True, help="the new file")
    add_quarantine_options(restore, required=True)
    restore.set_defaults(run=run_restore)


def run_key(options: argparse.Namespace) -> int:
    """Makes a key."""
    try:
        from imagesafety.stored.sealing import new_key
    except ModuleNotFoundError:
        return _not_installed()
    try:
        _write_new(options.file, new_key().encode())
    except OSError as error:
        return _refuse(f"{options.file}: {error.strerror}")
    print(f"{options.file}: keep it safe, and apart: without it nothing comes back")
    return 0


def run_restore(options: argparse.Namespace) -> int:
    """Brings a file back; 1 if it is not there, or not whole."""
    try:
        from imagesafety.stored.opening import parse_options
        from imagesafety.stored.place import PlaceSettingError
        from imagesafety.stored.quarantine import Quarantine, QuarantineError, digest_of_name
        from imagesafety.stored.sealing import SealError, read_key
    except ModuleNotFoundError:
        return _not_installed()
    try:
        key = read_key(options.quarantine_key)
        place = parse_options(options.quarantine_option)
        data = Quarantine(options.quarantine, place, key).get(digest_of_name(options.name))
        _write_new(options.to, data)
    except (PlaceSettingError, SealError) as error:
        return _refuse(str(error))
    except QuarantineError as error:
        print(f"imagesafety: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        return _refuse(f"{options.to}: {error.strerror}")
    print(f"{options.to}: {len(data)} bytes")
    return 0


def _write_new(path: Path, data: bytes) -> None:
    """Writes a file that only its owner can read. Raises OSError if there is one already."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _refuse(message: str) -> int:
    print(f"imagesafety: {message}", file=sys.stderr)
    return 2


def _not_installed() -> int:
    return _refuse("quarantine needs `pip install 'imagesafety[scan]'`")
