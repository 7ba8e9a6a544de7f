"""Finds the scores that the same bytes have had."""

from __future__ import annotations

import logging

from sqlalchemy import Connection, select, true

from gateway.ledger.record import DecisionRecord, ScoredBy
from gateway.ledger.rows import record_of
from gateway.ledger.tables import decisions

log = logging.getLogger("gateway")


def newest_scored(
    connection: Connection, sha256: bytes, media_type: str, scored_by: ScoredBy
) -> DecisionRecord | None:
    """The newest record of these bytes with scores of all of the file.

    Under any weights, if `scored_by` names none.
    """
    columns, weights = decisions.c, scored_by.weights_digest
    statement = (
        select(decisions)
        .where(
            columns.sha256 == sha256,
            columns.policy_digest == scored_by.policy_digest,
            columns.concepts_digest == scored_by.concepts_digest,
            columns.model == scored_by.model,
            columns.weights_digest == weights if weights else true(),
            columns.media_type == media_type,
            columns.views.is_not(None),
            columns.partial == "",
        )
        .order_by(columns.seq.desc())
        .limit(1)
    )
    row = connection.execute(statement).first()
    try:
        return record_of(row) if row is not None else None
    except ValueError as error:
        log.error("row %s of the ledger is damaged: %s", row.id if row else "", error)
        return None
