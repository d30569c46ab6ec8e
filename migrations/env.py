"""Alembic's entry: runs migrations on the database that the settings name."""

from typing import Any, Literal

from alembic import context

import worker.audit_tables
import worker.commitment_tables
import worker.tables  # noqa: F401 - all of them enter their tables into the metadata
from worker.columns import Table, UtcDateTime
from worker.database import Database
from worker.settings_loading import load_settings


def database_url() -> str:
    """The URL that a program handed over, else the one of the settings."""
    given = context.config.attributes.get("database_url")
    if given:
        return str(given)
    settings = load_settings()
    settings.prepare_home()
    return settings.resolved_database_url


def render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Migrations name no type of this program, which may change after them."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run_on_connection() -> None:
    """Run migrations against the live database, all in one transaction."""
    database = Database(database_url())
    try:
        with database.engine.connect() as connection:
            context.configure(
                connection=connection,
                target_metadata=Table.metadata,
                render_as_batch=connection.dialect.name == "sqlite",
                render_item=render_item,
                # Our SQLite connections open real transactions, so a failed migration leaves
                # the schema as it was there too.
                transactional_ddl=True,
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        database.close()


def print_sql() -> None:
    """Print the statements instead of running them (``alembic upgrade head --sql``)."""
    context.configure(
        url=database_url(),
        target_metadata=Table.metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
else:
    run_on_connection()
