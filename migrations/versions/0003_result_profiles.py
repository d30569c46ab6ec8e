"""Targets get what their profile says, and may be DICOMweb services.

Revision 0003, after 0002

Columns are only added: SQLite would make the table ``peers`` anew for any other change, under the
deliveries that refer to it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("peers", sa.Column("url", sa.String(length=512), nullable=True))
    op.add_column(
        "peers",
        sa.Column("results", sa.String(length=64), nullable=False, server_default="seg+sc"),
    )
    op.add_column("deliveries", sa.Column("instead_of", sa.String(length=32), nullable=True))


def downgrade() -> None:
    op.execute("UPDATE deliveries SET state = 'not taken' WHERE state = 'substituted'")
    op.drop_column("deliveries", "instead_of")
    op.drop_column("peers", "results")
    op.drop_column("peers", "url")
