"""The tables of the database. Migrations in `migrations/` make them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite counts up by itself in INTEGER columns only.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

decisions = Table(
    "decisions",
    metadata,
    # Paging and order go by this: clocks jump.
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("at", BigInteger, nullable=False, index=True),  # microseconds since 1970, UTC
    Column("client", String(128), nullable=False),
    Column("client_mode", String(8), nullable=False),
    Column("sha256", LargeBinary(32)),
    Column("size", BigInteger, nullable=False),
    Column("media_type", String(32), nullable=False),
    Column("found_type", String(32), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("total_frames", Integer, nullable=False),
    Column("partial", Text, nullable=False),
    Column("decision", String(8), nullable=False),
    Column("cause", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("rule", Text),
    Column("flagged", Boolean, nullable=False),
    Column("shadow", String(8)),
    Column("shadow_rule", Text),
    Column("unscanned", Boolean, nullable=False),
    Column("rescan", String(8)),
    Column("override", String(32)),
    Column("repeat_of", String(32)),
    Column("rescan_of", String(32)),
    Column("deciding_view", Integer),
    Column("views", LargeBinary),  # packing.py
    Column("perceptual_hashes", LargeBinary),  # packing.py
    Column("model", Text, nullable=False),
    Column("weights_digest", String(80), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("concepts_digest", String(64), nullable=False),
    Column("policy_digest", String(64), nullable=False),
    Column("total_ms", Float, nullable=False),
    Column("upload_ms", Float),
    Column("score_ms", Float),
    Column("decode_ms", Float),
    Column("encode_ms", Float),
    Column("reference", Text),  # what the caller calls the file
    Column("user_agent", Text),
    Index("decisions_by_bytes", "sha256", "policy_digest"),
    Index(
        "decisions_unscanned",
        "seq",
        sqlite_where=text("unscanned"),
        postgresql_where=text("unscanned"),
    ),
    Index(
        "decisions_to_rescan",
        "seq",
        sqlite_where=text("rescan = 'pending'"),
        postgresql_where=text("rescan = 'pending'"),
    ),
)

# The text of each policy that decided: what names the similarities of a row, and its thresholds.
policies = Table(
    "policies",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("text", Text, nullable=False),
    Column("first_used", BigInteger, nullable=False),
)

overrides = Table(
    "overrides",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("action", String(8), nullable=False),  # "allow" or "deny"
    Column("sha256", LargeBinary(32), unique=True),
    Column("pdq", LargeBinary(32), index=True),
    Column("rule", Text),  # that a perceptual allow is for
    Column("note", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("decision_id", String(32)),  # that it was made from
)

# What was done to overrides, by whom and why; only ever added to. Its last number tells other
# gateways on the same database to read the overrides again.
override_changes = Table(
    "override_changes",
    metadata,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", String(8), nullable=False),  # "added" or "removed"
    Column("why", Text, nullable=False),
    Column("override_id", String(32), nullable=False, index=True),
    Column("entry", Text, nullable=False),  # the override, as JSON
)

# Webhooks to be sent. A row comes in the transaction of its decision, and goes with it.
deliveries = Table(
    "deliveries",
    metadata,
    Column("decision_id", String(32), primary_key=True),
    Column("event", String(32), nullable=False),  # "decision.rejected" or "decision.flagged"
    Column("payload", Text, nullable=False),  # the JSON body
    Column("at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", BigInteger),  # microseconds; None when there is nothing more to do
    Column("delivered", BigInteger),
    Column("last_error", Text, nullable=False),
    Index("deliveries_due", "due"),
)
