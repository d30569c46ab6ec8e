"""Studies can be removed: what they hold has a size, and files wait to be deleted.

Revision 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("results", sa.Column("size", sa.BigInteger(), nullable=True))
    op.add_column("instance_conflicts", sa.Column("size", sa.BigInteger(), nullable=True))
    op.create_index("ix_studies_state_finished_at", "studies", ["state", "finished_at"])
    op.create_table(
        "files_to_remove",
        sa.Column("relative_path", sa.String(length=255), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_key"], ["studies.study_key"], name=op.f("fk_files_to_remove_study_key")
        ),
        sa.PrimaryKeyConstraint("relative_path", name=op.f("pk_files_to_remove")),
    )
    op.create_index("ix_files_to_remove_study_key", "files_to_remove", ["study_key"])


def downgrade() -> None:
    op.execute("UPDATE studies SET state = 'rejected' WHERE state = 'removed'")
    op.drop_index("ix_files_to_remove_study_key", "files_to_remove")
    op.drop_table("files_to_remove")
    op.drop_index("ix_studies_state_finished_at", "studies")
    op.drop_column("instance_conflicts", "size")
    op.drop_column("results", "size")
