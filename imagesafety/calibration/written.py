"""A calibrated policy as a file: the administrator's own, with other numbers in it."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from imagesafety.calibration.budget import CalibrationError
from imagesafety.calibration.strictness import DIGITS
from imagesafety.evaluation.whole_file import whole_file
from imagesafety.policy import Policy
from imagesafety.policy_file import PolicyError, parse_policy
from imagesafety.provenance import Provenance, places
from imagesafety.provenance_file import with_provenance
from imagesafety.toml_edit import Scalar, literal, with_line_after, with_values
from imagesafety.toml_lines import Place


def written(old: Policy, new: Policy, provenance: Provenance) -> str:
    """The text of `old`'s file with `new`'s numbers, model and weights, and the provenance above.

    Order, comments and formatting stay as they are. It is read again, and what it says is compared
    with what was meant. Raises CalibrationError if they differ.
    """
    before, after = _values(old), _values(new)
    changes = {place: after[place] for place, value in before.items() if after[place] != value}
    try:
        text = with_values(old.text, changes, DIGITS)
        if ("weights_digest",) not in before and new.weights_digest is not None:
            line = f"weights_digest = {literal(new.weights_digest, 0)}"
            text = with_line_after(text, ("model",), line)
        text = with_provenance(text, provenance)
        found = parse_policy(text)
    except KeyError as error:
        raise CalibrationError(f"the policy file can't be edited: {error.args[0]}") from error
    except PolicyError as error:
        raise CalibrationError(f"the policy file can't be edited: {error}") from error
    # Probes' vectors are in files of their own, so concepts are compared by their digest.
    meant = replace(new, digest=found.digest, concepts=found.concepts)
    if found != meant or found.concepts_digest != new.concepts_digest:
        raise CalibrationError("the policy file can't be edited: it would say something else")
    return text


def _values(policy: Policy) -> dict[Place, Scalar]:
    """Everything that calibration may change, by its place in the file."""
    values: dict[Place, Scalar] = {("model",): policy.model}
    if policy.weights_digest is not None:
        values["weights_digest",] = policy.weights_digest
    values |= {place: value for place, (_, value) in places(policy).items()}
    for index, change in enumerate(policy.adjustments):
        for concept, amount in change.add.items():
            values["adjustments", index, "add", concept] = amount
    return values


def with_line_ends_of(path: Path, text: str) -> str:
    """The text with lines that end as the first one of the file does. Raises OSError."""
    with path.open("rb") as file:
        ends_in_crlf = file.readline().endswith(b"\r\n")
    return text.replace("\n", "\r\n") if ends_in_crlf else text


def save(path: Path, text: str, *, replacing: bool) -> None:
    """Writes the file whole or not at all; over one that is there only if `replacing`.

    Raises OSError, FileExistsError among them.
    """
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    with whole_file(path, mode) as file:
        file.write(text)
        if not replacing and path.exists():
            raise FileExistsError(f"{path}: there is such a file already")
