"""The event log is a hash chain; every entry waits for its place from the moment it is written.

Revision 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "event_links",
        sa.Column("position", _KEY, autoincrement=False, nullable=False),
        sa.Column("event_key", _KEY, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_event_links")),
        sa.UniqueConstraint("event_key", name=op.f("uq_event_links_event_key")),
    )
    op.create_table(
        "unchained_events",
        sa.Column("event_key", _KEY, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("event_key", name=op.f("pk_unchained_events")),
    )
    op.create_table(
        "log_cursors",
        sa.Column("reader", sa.String(length=32), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("reader", name=op.f("pk_log_cursors")),
    )
    op.execute("INSERT INTO log_cursors (reader, position) VALUES ('chain', 0)")
    op.execute("INSERT INTO unchained_events (event_key) SELECT event_key FROM events")
    op.create_index("ix_events_association_key", "events", ["association_key"])
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER events_wait_for_chain AFTER INSERT ON events "
            "BEGIN INSERT INTO unchained_events (event_key) VALUES (NEW.event_key); END"
        )
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER event_links_no_{action.lower()} BEFORE {action} ON event_links "
                "BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION let_event_wait_for_chain() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO unchained_events (event_key) VALUES (NEW.event_key); "
            "RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER events_wait_for_chain AFTER INSERT ON events "
            "FOR EACH ROW EXECUTE FUNCTION let_event_wait_for_chain()"
        )
        op.execute(
            "CREATE TRIGGER event_links_append_only "
            "BEFORE UPDATE OR DELETE OR TRUNCATE ON event_links "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_event_change()"
        )


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TRIGGER events_wait_for_chain")
    else:
        op.execute("DROP TRIGGER events_wait_for_chain ON events")
        op.execute("DROP FUNCTION let_event_wait_for_chain()")
    op.drop_index("ix_events_association_key", "events")
    for table in ("log_cursors", "unchained_events", "event_links"):
        op.drop_table(table)
