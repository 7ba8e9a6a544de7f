"""Reads recorded decisions that have scores, as `policy replay` and the what-if page need them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, RowMapping, func, select

from gateway.ledger.packing import unpack_views
from gateway.ledger.tables import decisions, overrides, policies
from imagesafety.policy import Action, Mode
from imagesafety.recorded import Recorded

PAGE_ROWS = 200  # few enough that no transaction is long

_COLUMNS = (
    *(decisions.c.seq, decisions.c.id, decisions.c.at, decisions.c.client),
    *(decisions.c.client_mode, decisions.c.sha256, decisions.c.decision, decisions.c.cause),
    *(decisions.c.rule, decisions.c.flagged, decisions.c.shadow, decisions.c.shadow_rule),
    *(decisions.c.partial, decisions.c.model, decisions.c.weights_digest),
    *(decisions.c.policy_digest, decisions.c.override, decisions.c.views),
)


@dataclass(frozen=True)
class Span:
    """The decisions with a `seq` after one and up to another, that are not older than `since`."""

    after: int
    last: int
    since: int


@dataclass(frozen=True)
class Page:
    """A few rows of decisions with scores, and the overrides that they are about.

    `deciding` has those that decided, by id, `by_bytes` what is said today of a row's bytes. `rest`
    is what comes after the page.
    """

    rows: Sequence[RowMapping]
    deciding: Mapping[str, RowMapping]
    by_bytes: Mapping[bytes, Literal["allow", "deny"]]
    rest: Span

    @property
    def policy_digests(self) -> set[str]:
        """The policies that decided."""
        return {row["policy_digest"] for row in self.rows}

    def recorded(self) -> list[Recorded]:
        """The rows as values, in their order."""
        return [self._recorded(row) for row in self.rows]

    def _recorded(self, row: RowMapping) -> Recorded:
        sha256: bytes | None = row["sha256"]
        entry = self.deciding.get(row["override"]) if row["override"] is not None else None
        alike = entry is not None and entry["action"] == "allow" and entry["sha256"] != sha256
        return Recorded(
            id=row["id"],
            at=row["at"],
            client=row["client"],
            client_mode=Mode(row["client_mode"]),
            sha256=sha256.hex() if sha256 is not None else None,
            decision=row["decision"],
            cause=row["cause"],
            model=row["model"],
            weights_digest=row["weights_digest"],
            policy_digest=row["policy_digest"],
            similarities=_similarities(row["views"]),
            rule=row["rule"],
            flagged=row["flagged"],
            shadow=Action(row["shadow"]) if row["shadow"] is not None else None,
            shadow_rule=row["shadow_rule"],
            partial=row["partial"],
            excepted=entry["rule"] if entry is not None and alike else None,
            override_gone=row["override"] is not None and entry is None,
            override_now=self.by_bytes.get(sha256) if sha256 is not None else None,
        )


def _similarities(packed: bytes) -> tuple[tuple[float, ...], ...]:
    """Of each view; none where the bytes are broken, which nothing is to fail of."""
    try:
        return tuple(view.similarities for view in unpack_views(packed))
    except ValueError:
        return ()


def span_since(connection: Connection, since: int) -> Span:
    """The decisions that there are now from a time on, in microseconds since 1970."""
    first = connection.scalar(select(func.min(decisions.c.seq)).where(decisions.c.at >= since))
    last = connection.scalar(select(func.max(decisions.c.seq)))
    if first is None or last is None:
        return Span(0, 0, since)
    return Span(first - 1, last, since)


def read_page(connection: Connection, span: Span, limit: int = PAGE_ROWS) -> Page:
    """The first rows with scores of a span, at most `limit`."""
    rows = (
        connection.execute(
            select(*_COLUMNS)
            .where(decisions.c.seq > span.after, decisions.c.seq <= span.last)
            .where(decisions.c.at >= span.since, decisions.c.views.is_not(None))
            .order_by(decisions.c.seq)
            .limit(limit)
        )
        .mappings()
        .all()
    )
    ids = {row["override"] for row in rows if row["override"] is not None}
    deciding = connection.execute(
        select(overrides.c.id, overrides.c.action, overrides.c.sha256, overrides.c.rule).where(
            overrides.c.id.in_(ids)
        )
    ).mappings()
    hashes = {row["sha256"] for row in rows if row["sha256"] is not None}
    exact = connection.execute(
        select(overrides.c.sha256, overrides.c.action).where(overrides.c.sha256.in_(hashes))
    )
    return Page(
        rows=rows,
        deciding={row["id"]: row for row in deciding},
        by_bytes={bytes(sha256): action for sha256, action in exact},
        rest=replace(span, after=rows[-1]["seq"] if len(rows) == limit else span.last),
    )


def read_policy_texts(connection: Connection, digests: Collection[str]) -> dict[str, str]:
    """The texts of policies that decided, by digest, as far as the ledger has them."""
    wanted = select(policies.c.digest, policies.c.text).where(policies.c.digest.in_(digests))
    return {row.digest: row.text for row in connection.execute(wanted)}
