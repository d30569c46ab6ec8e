"""The schema comes from migrations alone, on SQLite and PostgreSQL."""

from datetime import UTC, datetime

import pytest
from alembic import command
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from dicom_io.errors import SettingsError
from worker.columns import Table
from worker.database import Database, alembic_configuration
from worker.tables import Event


def test_upgrade_makes_every_table_and_downgrade_removes_them(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    database.upgrade_to_head()
    assert set(inspect(database.engine).get_table_names()) >= set(Table.metadata.tables)

    command.downgrade(alembic_configuration(empty_database_url), "base")
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}

    database.upgrade_to_head()
    database.require_current_schema()
    database.close()


def test_migrations_and_tables_say_the_same(any_database: Database) -> None:
    command.check(alembic_configuration(any_database.url))


def test_a_database_of_another_version_is_refused(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(SettingsError, match="python -m worker migrate"):
        database.require_current_schema()
    database.close()


@pytest.mark.parametrize("statement", ["UPDATE events SET kind = 'x'", "DELETE FROM events"])
def test_the_event_log_cannot_be_changed(any_database: Database, statement: str) -> None:
    at = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
    with any_database.writing() as session:
        session.add(Event(at=at, kind="test", detail={"count": 1}))
    with pytest.raises(DBAPIError, match="append-only"), any_database.writing() as session:
        session.execute(text(statement))
    with any_database.reading() as session:
        (event,) = session.query(Event).all()
    assert (event.at, event.detail) == (at, {"count": 1})


def test_naive_times_do_not_reach_the_database(any_database: Database) -> None:
    with pytest.raises(Exception, match="without time zone"), any_database.writing() as session:
        session.add(Event(at=datetime(2026, 11, 23), kind="test", detail={}))


def test_sqlite_survives_a_power_cut_and_checks_foreign_keys(database: Database) -> None:
    with database.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
