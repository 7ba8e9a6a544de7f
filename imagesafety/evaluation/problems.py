"""What could not be judged, or not be relied on, and why; counted, and kept to be listed.

What the gateway would make of a file without scores depends on why there are none, as
`docs/architecture.md` has it; that is said beside the policy's own rates and never part of them.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from imagesafety.evaluation.material import shown
from imagesafety.evaluation.scored import ScoredFile

_UNDECODABLE = frozenset(
    {"UNSUPPORTED_TYPE", "TYPE_MISMATCH", "TRUNCATED", "UNDECODABLE"}
    | {"EMPTY_IMAGE", "DECODER_CRASHED", "DECODER_TIMEOUT", "DECODER_OUT_OF_MEMORY"}
)
_TOO_LARGE = frozenset({"TOO_MANY_BYTES", "TOO_MANY_PIXELS", "TOO_MANY_FRAMES", "TOO_LONG"})


class Kind(StrEnum):
    """What is wrong, and in which sense."""

    UNREADABLE = "the file can't be read here"
    UNDECODABLE = "no media that can be decoded"
    TOO_LARGE = "over a limit of the service"
    PASSING = "the service failed, and may not the next time"
    CONTRADICTION = "the same bytes have labels that contradict each other"

    @property
    def gateway(self) -> str:
        """What the gateway would answer to an upload of it."""
        return {
            Kind.UNDECODABLE: "rejected, unless it is set to accept what can't be decoded",
            Kind.TOO_LARGE: "refused with status 413",
            Kind.PASSING: "accepted unscanned, unless it is set to refuse",
        }.get(self, "")


@dataclass(frozen=True, slots=True)
class Problem:
    """One file and what is wrong with it; `label` is accept, reject or empty."""

    kind: Kind
    path: str
    sha256: str
    label: str
    reason: str


def problem_of(scored: ScoredFile) -> Problem:
    """Why a file has no scores."""
    reason = scored.error.reason if scored.error is not None else None
    if reason is None:
        kind = Kind.UNREADABLE
    elif reason in _UNDECODABLE:
        kind = Kind.UNDECODABLE
    elif reason in _TOO_LARGE:
        kind = Kind.TOO_LARGE
    else:
        kind = Kind.PASSING
    label = {None: "", True: "reject", False: "accept"}[scored.file.labels.reject]
    return Problem(kind, shown(scored.file.path), scored.sha256, label, scored.problem)


class Problems:
    """Problems in a temporary file, and how many there are of which kind and label."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where the file lies."""
        self._file = tempfile.TemporaryFile("w+", dir=folder, encoding="utf-8")  # noqa: SIM115
        self.counts: Counter[tuple[Kind, str]] = Counter()

    def add(self, problem: Problem) -> None:
        """Keeps one."""
        self.counts[problem.kind, problem.label] += 1
        self._file.seek(0, 2)
        self._file.write(json.dumps(asdict(problem)) + "\n")

    def __len__(self) -> int:
        return self.counts.total()

    def __iter__(self) -> Iterator[Problem]:
        self._file.seek(0)
        for line in self._file:
            content = json.loads(line)
            yield Problem(**{**content, "kind": Kind(content["kind"])})

    def close(self) -> None:
        """Forgets everything."""
        self._file.close()
