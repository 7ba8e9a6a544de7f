"""Decisions get the caller's own identifier of the file, and the program that called."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Add the columns. They are empty in older rows, and a gateway of before may go on writing."""
    op.add_column("decisions", sa.Column("reference", sa.Text(), nullable=True))
    op.add_column("decisions", sa.Column("user_agent", sa.Text(), nullable=True))
