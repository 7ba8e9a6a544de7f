"""The texts of policies, which give the similarities of rows their names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from gateway.ledger.tables import policies as table


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A row of `policies`. `first_used` is in microseconds since 1970, UTC."""

    digest: str
    text: str
    first_used: int


class NotedPolicies:
    """The policies that this process uses, and which of them still have to be written."""

    def __init__(self) -> None:
        self._noted: dict[str, PolicyText] = {}
        self._stored: set[str] = set()
        self._spooled: set[str] = set()

    def note(self, policy: PolicyText) -> None:
        """Adds one; the first text of a digest stays."""
        self._noted.setdefault(policy.digest, policy)

    @property
    def digests(self) -> frozenset[str]:
        """Those of all."""
        return frozenset(self._noted)

    def not_stored(self) -> list[PolicyText]:
        """Those that the database may not have."""
        return [text for digest, text in self._noted.items() if digest not in self._stored]

    def not_safe(self) -> list[PolicyText]:
        """Those that the spool may not have. The database that has them may be emptied."""
        return [text for digest, text in self._noted.items() if digest not in self._spooled]

    def mark_stored(self, policies: Collection[PolicyText]) -> None:
        """Says that the database has these."""
        self._stored.update(policy.digest for policy in policies)

    def mark_spooled(self, policies: Collection[PolicyText]) -> None:
        """Says that the spool has these."""
        self._spooled.update(policy.digest for policy in policies)

    @property
    def stored(self) -> frozenset[str]:
        """The digests of those that the database has, as far as we know."""
        return frozenset(self._stored)

    def mark_missing(self, digests: Collection[str]) -> None:
        """Mark these as to be written again: others may have deleted them as unused."""
        self._stored.difference_update(digests)

    def mark_unspooled(self) -> None:
        """Note that the spool has none any more."""
        self._spooled.clear()

    def write_again(self) -> None:
        """Mark all of them as to be written again."""
        self._stored.clear()


def missing_policies(connection: Connection, digests: Collection[str]) -> frozenset[str]:
    """The digests whose texts are missing in the database."""
    found = connection.scalars(select(table.c.digest).where(table.c.digest.in_(digests)))
    return frozenset(digests) - frozenset(found)
