"""Reads recorded decisions that have scores, as `policy replay` and the what-if page need them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection, RowMapping, Select, func, select

from gateway.ledger.packing import unpack_hashes, unpack_views
from gateway.ledger.tables import decisions, policies
from gateway.overrides.matching import Override, OverrideAction, OverrideSet
from imagesafety.policy import Action, Mode
from imagesafety.recorded import Recorded

T = TypeVar("T")

PAGE_ROWS = 200  # few enough that no transaction is long

_COLUMNS = (
    *(decisions.c.seq, decisions.c.id, decisions.c.at, decisions.c.client),
    *(decisions.c.client_mode, decisions.c.sha256, decisions.c.decision, decisions.c.cause),
    *(decisions.c.rule, decisions.c.flagged, decisions.c.shadow, decisions.c.shadow_rule),
    *(decisions.c.partial, decisions.c.model, decisions.c.weights_digest),
    *(decisions.c.policy_digest, decisions.c.override, decisions.c.views),
    *(decisions.c.perceptual_hashes, decisions.c.total_frames),
)


@dataclass(frozen=True)
class Span:
    """The decisions with a `seq` after one and up to another, that are not older than `since`."""

    after: int
    last: int
    since: int


@dataclass(frozen=True)
class Page:
    """Some rows of decisions with scores. `rest` is what was asked for beyond them."""

    rows: Sequence[RowMapping]
    rest: Span

    @property
    def policy_digests(self) -> set[str]:
        """The policies that decided."""
        return {row["policy_digest"] for row in self.rows}

    def recorded(self, overrides: OverrideSet) -> list[Recorded]:
        """The rows as values, in their order; `overrides` are those of today."""
        return [_recorded(row, overrides) for row in self.rows]


def _recorded(row: RowMapping, overrides: OverrideSet) -> Recorded:
    sha256: bytes | None = row["sha256"]
    deciding = overrides.get(row["override"]) if row["override"] is not None else None
    by_looks = (
        deciding is not None
        and deciding.action is OverrideAction.ALLOW
        and deciding.sha256 != sha256
    )
    alike = overrides.alike(_unpacked(unpack_hashes, row["perceptual_hashes"]), row["total_frames"])
    # Those that had no part in it too: without their rules, another policy says the same.
    allows = [entry for entry in alike.allows if entry.at <= row["at"]]
    if deciding is not None and by_looks:
        allows.append(deciding)
    now = overrides.exact(sha256) if sha256 is not None else None
    now = now or alike.deny
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
        similarities=tuple(view.similarities for view in _unpacked(unpack_views, row["views"])),
        rule=row["rule"],
        flagged=row["flagged"],
        shadow=Action(row["shadow"]) if row["shadow"] is not None else None,
        shadow_rule=row["shadow_rule"],
        partial=row["partial"],
        excepted=_rules(allows),
        override_stays=deciding is not None and not by_looks,
        override_gone=row["override"] is not None and deciding is None,
        override_now=now.action.value if now is not None else None,
        allowed_now=_rules(alike.allows),
    )


def _rules(allows: Iterable[Override]) -> tuple[str, ...]:
    return tuple(sorted({entry.rule for entry in allows if entry.rule is not None}))


def _unpacked(unpack: Callable[[bytes], tuple[T, ...]], packed: bytes | None) -> tuple[T, ...]:
    """What is packed in a row; nothing where the bytes are broken, which nothing is to fail of."""
    try:
        return unpack(packed) if packed is not None else ()
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
    query = _scored(span).order_by(decisions.c.seq).limit(limit)
    rows = connection.execute(query).mappings().all()
    return Page(
        rows=rows,
        rest=replace(span, after=rows[-1]["seq"] if len(rows) == limit else span.last),
    )


def read_newest(connection: Connection, span: Span, most_rows: int, most_bytes: int) -> Page:
    """The newest rows with scores of a span, oldest first: so many at most.

    No more than `most_bytes` of packed views, but for those of the last few rows.
    """
    newest: list[RowMapping] = []
    while most_rows > 0 and most_bytes > 0:
        limit = min(PAGE_ROWS, most_rows)
        query = _scored(span).order_by(decisions.c.seq.desc()).limit(limit)
        rows = connection.execute(query).mappings().all()
        newest += rows
        span = replace(span, last=rows[-1]["seq"] - 1 if len(rows) == limit else span.after)
        most_rows -= len(rows)
        most_bytes -= sum(len(row["views"]) for row in rows)
        if len(rows) < limit:
            break
    return Page(newest[::-1], span)


def _scored(span: Span) -> Select[*tuple[object, ...]]:
    return (
        select(*_COLUMNS)
        .where(decisions.c.seq > span.after, decisions.c.seq <= span.last)
        .where(decisions.c.at >= span.since, decisions.c.views.is_not(None))
    )


def read_policy_texts(connection: Connection, digests: Collection[str]) -> dict[str, str]:
    """The texts of policies that decided, by digest, as far as the ledger has them."""
    wanted = select(policies.c.digest, policies.c.text).where(policies.c.digest.in_(digests))
    return {row.digest: row.text for row in connection.execute(wanted)}
