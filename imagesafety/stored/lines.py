"""The lines of a report, as what becomes JSON. Pure code."""

from __future__ import annotations

from collections.abc import Mapping

from imagesafety.policy import Policy
from imagesafety.stored.finding import Finding
from imagesafety.stored.place import StoredFile
from imagesafety.stored.state import Known, Line
from imagesafety.verdict import named


def file_line(at: str, file: StoredFile, known: Known, similarities: Mapping[str, float]) -> Line:
    """What is said of a file: by name and hash, never with anything of the picture."""
    finding, sha256 = known.finding, known.seen.sha256
    line: dict[str, object] = {"kind": finding.kind, "at": at, "name": file.name}
    if file.aliases:
        line["aliases"] = list(file.aliases)
    if sha256 is not None:
        line["sha256"] = sha256.hex()
    if file.size >= 0:
        line["size"] = file.size
    return line | _reasons(finding) | ({"similarities": similarities} if similarities else {})


def named_similarities(policy: Policy, known: Known) -> dict[str, float]:
    """The similarities of the view that decided, by concept; empty if no view did."""
    view = known.finding.view
    if view is None or view >= len(known.seen.views):
        return {}
    return {name: round(value, 6) for name, value in named(policy, known.seen.views[view]).items()}


def _reasons(finding: Finding) -> dict[str, object]:
    texts = {"rule": finding.rule, "reason": finding.reason, "message": finding.message}
    return {name: text for name, text in texts.items() if text}
