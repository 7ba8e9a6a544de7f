"""Which decisions somebody wants to see, from a URL's query; what makes no sense is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, or_

from gateway.admin.outcomes import IS_UNSCANNED, OUTCOMES, is_upload, outcome
from gateway.evidence import Cause
from gateway.ledger.record import Rescan
from gateway.ledger.tables import decisions

DECISIONS = ("accept", "reject")
CAUSES = tuple(cause.value for cause in Cause)
# The one choice that a row of links offers; "rejected" and so on are what people look for.
STATES = ("flagged", "shadow", "unscanned", "rescanned")
RESCANS = tuple(state.value for state in Rescan)
FIELDS = (
    "decision",
    "outcome",
    "cause",
    "rule",
    "client",
    "state",
    "rescan",
    "since",
    "until",
    "sha256",
)
_LARGEST = 2**63 - 1


class BadFilterError(ValueError):
    """A filter or page that can't be meant; the message says which and why."""


@dataclass(frozen=True)
class DecisionFilter:
    """What is asked for, as it was typed. An empty field asks for nothing."""

    decision: str = ""
    outcome: str = ""
    cause: str = ""
    rule: str = ""
    client: str = ""
    state: str = ""
    rescan: str = ""
    since: str = ""
    until: str = ""
    sha256: str = ""

    @property
    def query(self) -> dict[str, str]:
        """What is asked for, as parameters of a URL."""
        return {name: value for name in FIELDS if (value := getattr(self, name))}

    def link(self, **changed: object) -> str:
        """The query string with some parameters set, or left out where None."""
        values = self.query | {name: str(value) for name, value in changed.items()}
        return urlencode({name: value for name, value in values.items() if value != "None"})

    def conditions(self) -> list[ColumnElement[bool]]:
        """What rows have to meet. Raises BadFilterError."""
        table, found = decisions.c, []
        if self.decision:
            found.append(table.decision == _one_of(self.decision, DECISIONS, "decision"))
        if self.outcome:
            found += [outcome() == _one_of(self.outcome, OUTCOMES, "outcome"), is_upload()]
        if self.cause:
            found.append(table.cause == _one_of(self.cause, CAUSES, "cause"))
        if self.rule:
            found.append(or_(table.rule == self.rule, table.shadow_rule == self.rule))
        if self.client:
            found.append(table.client == self.client)
        if self.state:
            found.append(_STATES[_one_of(self.state, STATES, "state")])
        if self.rescan:
            found.append(table.rescan == _one_of(self.rescan, RESCANS, "rescan"))
        if self.since:
            found.append(table.at >= _microseconds(self.since))
        if self.until:
            found.append(table.at < _microseconds(self.until))
        if self.sha256:
            low, high = _range(self.sha256)
            found.append(table.sha256.between(low, high))
        return found


_STATES: dict[str, ColumnElement[bool]] = {
    "flagged": decisions.c.flagged.is_(True),
    "shadow": decisions.c.shadow.is_not(None),
    "unscanned": IS_UNSCANNED,
    "rescanned": decisions.c.rescan_of.is_not(None),
}


def read_filter(parameters: Mapping[str, str]) -> DecisionFilter:
    """The filter in a URL's query; what can't be in a database's text is refused."""
    values = {name: parameters.get(name, "").strip() for name in FIELDS}
    for name, value in values.items():
        if "\0" in value or len(value) > 500 or not value.isprintable():
            raise BadFilterError(f"{name} holds characters that no record has")
    return DecisionFilter(**values)


def read_number(parameters: Mapping[str, str], name: str) -> int | None:
    """A row number in a URL's query. Raises BadFilterError."""
    text = parameters.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > _LARGEST:
        raise BadFilterError(f"{name} is not the number of a page")
    return int(text)


def _one_of(value: str, choices: tuple[str, ...], name: str) -> str:
    if value not in choices:
        raise BadFilterError(f"{name} must be one of {', '.join(choices)}")
    return value


def _microseconds(text: str) -> int:
    """The time that a date field sends, in UTC."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return int(time.timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError):
        raise BadFilterError(f"{text!r} is no time such as 2026-01-31T23:59") from None


def _range(prefix: str) -> tuple[bytes, bytes]:
    """The first and the last SHA-256 that begins so."""
    prefix = prefix.lower()
    if not re.fullmatch(r"[0-9a-f]{1,64}", prefix):
        raise BadFilterError("a SHA-256 has up to 64 digits out of 0-9 and a-f")
    return bytes.fromhex(prefix.ljust(64, "0")), bytes.fromhex(prefix.ljust(64, "f"))
