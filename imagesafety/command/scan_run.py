"""The run of `imagesafety scan`: from options to settings, and what a person sees of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from pathlib import Path

from imagesafety.command.scan import PICT_RS_KEY
from imagesafety.command.scan_overrides import UNSAID, overrides_of
from imagesafety.command.service_options import (
    ServiceOptionsError,
    not_reached,
    service_address,
)
from imagesafety.override_list import OverrideListError
from imagesafety.policy_file import PolicyError, find_policy, load_policy
from imagesafety.scoring_error import ScoringError, ServiceUnavailableError
from imagesafety.since import parse_period
from imagesafety.stored.actions import Action, check_action
from imagesafety.stored.console import Console
from imagesafety.stored.opening import open_place, parse_options
from imagesafety.stored.place import Place, PlaceSettingError
from imagesafety.stored.quarantine_store import check_url
from imagesafety.stored.report_file import ReportError, ReportFile, ReportSettingError
from imagesafety.stored.scanner import TROUBLE, MismatchError, Scanner
from imagesafety.stored.sealing import SealError, read_key
from imagesafety.stored.settings import QuarantineSettings, ScanSettings
from imagesafety.stored.state import State, StateError
from imagesafety.stored.state_file import default_state_file, locked

_WRONG = (
    *(PolicyError, OverrideListError, PlaceSettingError, SealError, ServiceOptionsError),
    *(MismatchError, ReportSettingError, ValueError),
)
_BEHIND_ITS_BACK = (
    "imagesafety: if these files are pict-rs's, scan pict-rs+http://… and purge instead: it goes "
    "on to list the aliases of what is removed behind its back"
)


def run(options: argparse.Namespace) -> int:
    """Scans; 2 for what can't be meant, 1 for what failed."""
    try:
        place = open_place(
            options.place, parse_options(options.storage_option), _pict_rs_key(options)
        )
        settings = _settings(options, place)
        if settings.action is not Action.REPORT and place.removing == "delete":
            print(_BEHIND_ITS_BACK, file=sys.stderr)
        if settings.action is not Action.REPORT and options.overrides is None:
            print(f"imagesafety: --yes needs more: {UNSAID}", file=sys.stderr)
        return asyncio.run(_scan(settings, place))
    except _WRONG as error:
        return _say(str(error), 2)
    except (StateError, ReportError) as error:
        return _say(str(error), 1)
    except sqlite3.Error as error:
        return _say(f"the state can't be written: {error}", 1)
    except OSError as error:
        return _say(str(error), 2)
    except TROUBLE as error:
        _say(str(error), 1)
        if isinstance(error, ScoringError | ServiceUnavailableError):
            print(not_reached(options), file=sys.stderr)
        return 1


async def _scan(settings: ScanSettings, place: Place) -> int:
    with locked(settings.state_file), contextlib.ExitStack() as stack:
        state = State(settings.state_file, place.identity)
        stack.callback(state.close)
        report = None
        if settings.report_file is not None:
            report = ReportFile(settings.report_file, state)
            stack.callback(report.close)
        console = Console(place.identity, settings, report)
        scanner = Scanner(settings, place, state, console, console.say)
        caught = _stop_on_signals(scanner.stop)
        try:
            if settings.every_seconds is not None:
                with console.progress():
                    await scanner.for_ever(settings.every_seconds, console.summarise)
                return 0
            with console.progress():
                tally = await scanner.once()
        finally:
            await place.close()
        if tally is None:
            _say("interrupted; the same command goes on", 1)
            return 128 + caught[0]
        console.summarise(tally)
        return 0 if tally.complete else 1


def _settings(options: argparse.Namespace, place: Place) -> ScanSettings:
    """Raises one of _WRONG, and OSError."""
    policy = find_policy(options.policy)
    load_policy(policy)
    if options.limit is not None and options.limit < 1:
        raise PlaceSettingError("--limit is a number over 0")
    if options.prefix and place.removing == "purge":
        raise PlaceSettingError("pict-rs stores by hash: there is no --prefix to scan")
    service = service_address(options)
    if service.tls is not None:
        service.tls.credentials()
    action = Action(options.action)
    check_action(action, place)
    acts = action is not Action.REPORT
    quarantine = _quarantine(options, place) if action is Action.QUARANTINE else None
    return ScanSettings(
        policy=policy,
        service=service,
        state_file=options.state or default_state_file(place.identity, os.environ),
        overrides=overrides_of(options.overrides, acts=options.yes and acts),
        report_file=options.report,
        action=action,
        apply=options.yes,
        quarantine=quarantine,
        prefix=options.prefix,
        since_seconds=_seconds(options.since),
        limit=options.limit,
        every_seconds=_seconds(options.every),
        verbose=options.verbose,
    )


def _quarantine(options: argparse.Namespace, place: Place) -> QuarantineSettings:
    url, key = options.quarantine, options.quarantine_key
    if not url or not key:
        raise PlaceSettingError("--action quarantine needs --quarantine URL and --quarantine-key")
    absolute = url if "://" in url else f"file://{Path(url).resolve()}"
    if f"{absolute.rstrip('/')}/".startswith(f"{place.identity.partition(' at ')[0].rstrip('/')}/"):
        raise PlaceSettingError("the quarantine can't be inside of what is scanned")
    said = parse_options(options.quarantine_option)
    check_url(url, said)
    return QuarantineSettings(url, said, read_key(key))


def _seconds(period: str | None) -> float | None:
    return parse_period(period) / 1_000_000 if period is not None else None


def _pict_rs_key(options: argparse.Namespace) -> str:
    file: Path | None = options.pict_rs_api_key_file
    if file is None:
        return os.environ.get(PICT_RS_KEY, "").strip()
    return file.read_text(encoding="utf-8").strip()


def _stop_on_signals(stop: asyncio.Event) -> list[int]:
    """Has the first SIGTERM or SIGINT end it cleanly, and the next one at once."""
    caught: list[int] = []
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def ask(number: int) -> None:
        caught.append(number)
        stop.set()
        for other in signals:
            loop.remove_signal_handler(other)

    for number in signals:
        loop.add_signal_handler(number, ask, number)
    return caught


def _say(message: str, code: int) -> int:
    print(f"imagesafety: {message}", file=sys.stderr)
    return code
