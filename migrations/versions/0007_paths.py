"""Rows are found by the path of their file: a purge looks up every file of the store.

Revision 0007, after 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES = ("instances", "instance_conflicts", "results")


def upgrade() -> None:
    for table in _TABLES:
        op.create_index(f"ix_{table}_relative_path", table, ["relative_path"])


def downgrade() -> None:
    for table in _TABLES:
        op.drop_index(f"ix_{table}_relative_path", table)
