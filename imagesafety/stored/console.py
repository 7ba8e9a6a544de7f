"""What a person sees of a scan: hits as they are found, how far it is, and a summary."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from imagesafety.progress import Progress, progress
from imagesafety.stored.actions import PAST, Outcome
from imagesafety.stored.finding import Kind
from imagesafety.stored.place import UNREADABLE, StoredFile, Unlisted, printable
from imagesafety.stored.report_file import ReportFile
from imagesafety.stored.settings import ScanSettings
from imagesafety.stored.state import Known
from imagesafety.stored.tally import Tally, summary


class Console:
    """Standard output, with the bar on standard error, and the report's file."""

    def __init__(self, place: str, settings: ScanSettings, report: ReportFile | None) -> None:
        self._place, self._settings, self._report = place, settings, report
        self._bar: Progress | None = None
        self._counts = {Kind.HIT: 0, Kind.PROBLEM: 0}

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """Shows how far it is."""
        with progress("scanning", None) as self._bar:
            yield
        self._bar = None

    def found(self, file: StoredFile, known: Known, outcome: Outcome, why: str) -> None:
        """See Listener."""
        kind = known.finding.kind
        if kind is Kind.HIT:
            self._print(f"hit: {_described(file, known)}{self._done(outcome, why)}")
        elif kind is not Kind.CLEAN and (self._settings.verbose or kind is not Kind.NOT_MEDIA):
            said = known.finding.reason or known.finding.rule
            self._print(f"{kind}: {said + ' ' if said else ''}{_described(file, known)}")
        if self._bar is not None:
            if kind in self._counts:
                self._counts[kind] += 1
                counts = (f"{count} {name}s" for name, count in self._counts.items() if count)
                self._bar.note(", ".join(counts))
            self._bar.advance()

    def unlisted(self, part: Unlisted) -> None:
        """See Listener."""
        name = printable(part.name)
        self._print(f"{Kind.PROBLEM}: {UNREADABLE} {name}: {printable(part.message)}")

    def written(self) -> None:
        """See Listener."""
        if self._report is not None:
            self._report.write()

    def say(self, message: str) -> None:
        """Tells of trouble."""
        self._print(f"imagesafety: {message}", error=True)

    def summarise(self, tally: Tally) -> None:
        """Tells what a round came to."""
        for line in summary(tally, self._place, self._settings.action):
            self._print(printable(line))
        nothing = not tally.files and not tally.failed and not tally.recovered
        if nothing and self._settings.since_seconds is None:  # which may well find nothing new
            prefix = printable(self._settings.prefix)
            self.say(f"no file's name begins with {prefix}" if prefix else "there are no files")

    def _done(self, outcome: Outcome, why: str) -> str:
        past = PAST[self._settings.action]
        return {
            Outcome.WOULD: f": would be {past}",
            Outcome.DONE: f": {past}",
            Outcome.CHANGED: ": left alone, it was changed since",
            Outcome.GONE: ": gone already",
            Outcome.FAILED: f": not {past}: {why}",
        }.get(outcome, "")

    def _print(self, line: str, *, error: bool = False) -> None:
        stream = sys.stderr if error else sys.stdout
        if sys.stderr.isatty():  # there is a bar, which is drawn again below
            from tqdm import tqdm

            tqdm.write(line, file=stream)
        else:
            print(line, file=stream, flush=True)


def _described(file: StoredFile, known: Known) -> str:
    sha256 = known.seen.sha256.hex() if known.seen.sha256 is not None else ""
    name = printable(file.aliases[0] if file.aliases else file.name)
    rule = f"{known.finding.rule} " if known.finding.kind is Kind.HIT else ""
    message = f": {known.finding.message}" if known.finding.message else ""
    return " ".join(part for part in (rule.strip(), sha256, name) if part) + message
