"""Storage commitment: questions of peers until they are answered, and ours to targets.

Revision 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "peers", sa.Column("commits", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_table(
        "commitment_questions",
        sa.Column("question_key", sa.Integer(), nullable=False),
        sa.Column("listener", sa.String(length=255), nullable=False),
        sa.Column("association_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("question_key", name=op.f("pk_commitment_questions")),
        sa.UniqueConstraint(
            "calling_ae_title",
            "transaction_uid",
            name=op.f("uq_commitment_questions_calling_ae_title_transaction_uid"),
        ),
    )
    op.create_index(
        "ix_commitment_questions_listener_next_attempt_at",
        "commitment_questions",
        ["listener", "next_attempt_at"],
    )
    op.create_table(
        "commitment_requests",
        sa.Column("request_key", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("peer_key", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["peer_key"], ["peers.peer_key"], name=op.f("fk_commitment_requests_peer_key")
        ),
        sa.PrimaryKeyConstraint("request_key", name=op.f("pk_commitment_requests")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitment_requests_transaction_uid")),
    )


def downgrade() -> None:
    op.execute("UPDATE deliveries SET state = 'delivered' WHERE state = 'awaiting commitment'")
    op.drop_table("commitment_requests")
    op.drop_index("ix_commitment_questions_listener_next_attempt_at", "commitment_questions")
    op.drop_table("commitment_questions")
    op.drop_column("peers", "commits")
