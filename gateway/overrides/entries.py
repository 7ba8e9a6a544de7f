"""Entries that are not yet in force: what is checked of them, and their JSON. Pure code."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.ledger.record import DecisionRecord
from gateway.overrides.matching import (
    LEAST_QUALITY,
    MOST_DISTANCE,
    Override,
    OverrideAction,
    distance,
    usable,
)
from gateway.overrides.perceptual_index import HASH_BYTES
from imagesafety.scores import PerceptualHash

MOST_NOTE_CHARACTERS = 1000
MOST_WHO_CHARACTERS = 128
MOST_RULE_CHARACTERS = 256

_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # controls, halves of surrogate pairs, line separators


class OverrideError(Exception):
    """An override that can't be; the message says why."""


@dataclass(frozen=True, slots=True)
class NewOverride:
    """An entry to be added; the fields are those of Override."""

    action: OverrideAction
    sha256: bytes | None = None
    pdq: bytes | None = None
    rule: str | None = None
    note: str = ""
    decision_id: str | None = None

    @classmethod
    def of(cls, entry: Override) -> NewOverride:
        """The content of an entry in force."""
        return cls(entry.action, entry.sha256, entry.pdq, entry.rule, entry.note, entry.decision_id)

    def checked(self) -> NewOverride:
        """The entry with its texts trimmed. Raises OverrideError."""
        if self.sha256 is None and self.pdq is None:
            raise OverrideError("an override needs a SHA-256 or a PDQ hash")
        for name, value in (("SHA-256", self.sha256), ("PDQ hash", self.pdq)):
            if value is not None and len(value) != HASH_BYTES:
                raise OverrideError(f"a {name} has {HASH_BYTES} bytes, not {len(value)}")
        rule = checked_text("rule", self.rule or "", MOST_RULE_CHARACTERS) or None
        looks_allowed = self.action is OverrideAction.ALLOW and self.pdq is not None
        if looks_allowed and rule is None:
            raise OverrideError("an allow by PDQ needs the rule that it is for")
        if rule is not None and not looks_allowed:
            raise OverrideError("a rule is only for an allow by PDQ")
        note = checked_text("note", self.note, MOST_NOTE_CHARACTERS)
        return replace(self, rule=rule, note=note)

    def adds_nothing_to(self, entry: Override) -> bool:
        """Whether the entry in force says all of this already."""
        return (
            (self.action, self.sha256) == (entry.action, entry.sha256)
            and self.pdq in (None, entry.pdq)
            and self.rule in (None, entry.rule)
            and self.note in ("", entry.note)
        )

    def replaces(self, entry: Override) -> bool:
        """Whether both can't be in force: they are for the same file or, by PDQ only, look.

        For the same look, several rules may be allowed.
        """
        if self.sha256 is not None or entry.sha256 is not None:
            return self.sha256 == entry.sha256
        return self.pdq == entry.pdq and (self.action != entry.action or self.rule == entry.rule)

    def in_force(self, id: str, who: str, at: int) -> Override:  # noqa: A002
        """The entry as it is when it was added; `at` in microseconds since 1970, UTC."""
        return Override(
            id=id,
            action=self.action,
            sha256=self.sha256,
            pdq=self.pdq,
            rule=self.rule,
            note=self.note,
            who=who,
            at=at,
            decision_id=self.decision_id,
        )


def checked_text(name: str, text: str, most: int) -> str:
    """The text without space around it. Raises OverrideError for one that is not plain or long."""
    text = text.strip()
    if len(text) > most:
        raise OverrideError(f"the {name} has {len(text)} characters; {most} are allowed")
    if any(unicodedata.category(character) in _NO_TEXT for character in text):
        raise OverrideError(f"the {name} has control characters or line breaks")
    return text


def checked_author(who: str, why: str) -> tuple[str, str]:
    """Who changes overrides, and why. Raises OverrideError if one of them is missing."""
    who = checked_text("name of who does it", who, MOST_WHO_CHARACTERS)
    why = checked_text("reason", why, MOST_NOTE_CHARACTERS)
    if not who or not why:
        raise OverrideError(f"say {'why' if who else 'who'}: every change of overrides is recorded")
    return who, why


def hash_from_hex(name: str, text: str) -> bytes:
    """The 32 bytes of 64 hexadecimal digits. Raises OverrideError."""
    if len(text) != 2 * HASH_BYTES or not text.isascii() or not text.isalnum():
        raise OverrideError(f"a {name} has {2 * HASH_BYTES} hexadecimal digits")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise OverrideError(f"a {name} has {2 * HASH_BYTES} hexadecimal digits") from None


def entry_from_decision(
    record: DecisionRecord, action: OverrideAction, *, perceptual: bool = False, note: str = ""
) -> NewOverride:
    """The entry that allows or denies the file of a decision. Raises OverrideError.

    With `perceptual`, what looks like the file is meant too. An allow is then for the rule that
    held; a deny is of the picture that a rule held for, if there are several.
    """
    if record.sha256 is None:
        raise OverrideError("the file did not come whole, so its SHA-256 is not known")
    pdq, rule = None, None
    if perceptual:
        if action is OverrideAction.ALLOW:
            rule = record.rule or record.shadow_rule
            if rule is None:
                raise OverrideError("no rule held for this file, so there is nothing to allow")
            pdq = _look_to_allow(record)
        else:
            pdq = _look_to_deny(record)
    return NewOverride(action, record.sha256, pdq, rule, note, record.id).checked()


def _look_to_allow(record: DecisionRecord) -> bytes:
    if record.total_frames > 1:
        raise OverrideError("animations and videos are allowed by their SHA-256 only")
    hashes = record.perceptual_hashes
    if not hashes or not all(map(usable, hashes)):
        raise OverrideError(_no_hash(record))
    if not _alike(hashes):
        raise OverrideError("the file looks different on different backgrounds")
    return hashes[0].pdq


def _look_to_deny(record: DecisionRecord) -> bytes:
    hashes = [picture for picture in record.perceptual_hashes if usable(picture)]
    if record.deciding_view is not None and record.deciding_view < len(record.views):
        view = record.views[record.deciding_view]
        hashes = [found for found in hashes if found.frame_index == view.frame_index]
        # A region may look the same on white and black where the whole picture does not.
        shown = [found for found in hashes if found.background == view.background]
        hashes = shown or hashes[:1]
    if not hashes:
        raise OverrideError(_no_hash(record))
    if not _alike(hashes):
        raise OverrideError("the file has several pictures, and which one is meant is not known")
    return hashes[0].pdq


def _alike(hashes: list[PerceptualHash] | tuple[PerceptualHash, ...]) -> bool:
    return all(distance(hashes[0].pdq, other.pdq) <= MOST_DISTANCE for other in hashes)


def _no_hash(record: DecisionRecord) -> str:
    if not record.perceptual_hashes:
        return "the decision has no perceptual hash"
    return f"there is too little in the picture to tell it from others (quality < {LEAST_QUALITY})"


def as_json(entry: Override) -> dict[str, str | int | None]:
    """The entry as JSON, hashes in hexadecimal."""
    return {
        "id": entry.id,
        "action": entry.action.value,
        "sha256": entry.sha256.hex() if entry.sha256 is not None else None,
        "pdq": entry.pdq.hex() if entry.pdq is not None else None,
        "rule": entry.rule,
        "note": entry.note,
        "who": entry.who,
        "at": entry.at,
        "decision_id": entry.decision_id,
    }


def from_json(value: Mapping[str, object]) -> Override:
    """The entry that `as_json` made this of. Raises ValueError, KeyError or TypeError."""
    text = {name: value[name] for name in ("sha256", "pdq", "rule", "decision_id")}
    if not all(item is None or isinstance(item, str) for item in text.values()):
        raise TypeError("a field is no text")
    at = value["at"]
    if not isinstance(at, int):
        raise TypeError("a time is no number")
    sha256, pdq = text["sha256"], text["pdq"]
    return Override(
        id=str(value["id"]),
        action=OverrideAction(str(value["action"])),
        sha256=bytes.fromhex(str(sha256)) if sha256 is not None else None,
        pdq=bytes.fromhex(str(pdq)) if pdq is not None else None,
        rule=str(text["rule"]) if text["rule"] is not None else None,
        note=str(value["note"]),
        who=str(value["who"]),
        at=at,
        decision_id=str(text["decision_id"]) if text["decision_id"] is not None else None,
    )
