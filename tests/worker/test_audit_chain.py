"""The event log as a hash chain: what was changed is found, and nobody waits for it."""

import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from worker.audit_chain import BEGINNING, ChainReport, chain_new_entries, entry_hash, verify_chain
from worker.audit_tables import EventLink
from worker.database import Database
from worker.events import EventKind, record
from worker.tables import Event

AT = datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC)


def write(database: Database, count: int = 1, **detail: object) -> None:
    with database.writing() as session:
        for number in range(count):
            record(
                session,
                EventKind.INSTANCE_STORED,
                AT + timedelta(seconds=number),
                study_key=7,
                detail={"number": number, "share": 0.1, "name": "größer", **detail},
            )


def report_of(database: Database, noted_head: str | None = None) -> ChainReport:
    with database.reading() as session:
        return verify_chain(session, noted_head)


def tamper(database: Database, table: str, statement: str) -> None:
    """Change the log as somebody would who owns the database."""
    with database.writing() as session:
        if database.engine.dialect.name == "sqlite":
            for action in ("update", "delete"):
                session.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_{action}"))
        else:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        session.execute(text(statement))


def test_every_entry_gets_its_place_once(any_database: Database) -> None:
    write(any_database, 5)
    assert report_of(any_database).waiting == 5
    assert [chain_new_entries(any_database, 3) for _ in range(3)] == [3, 2, 0]
    write(any_database)
    chain_new_entries(any_database)
    report = report_of(any_database)
    assert (report.entries, report.waiting, report.broken) == (6, 0, None)
    assert report.intact
    assert report.head != BEGINNING


@pytest.mark.parametrize(
    ("table", "statement", "found"),
    [
        ("events", "UPDATE events SET kind = 'x' WHERE event_key = 3", "entry 3 .* not what was"),
        ("events", "UPDATE events SET detail = '{}' WHERE event_key = 2", "entry 2 .* not what"),
        ("events", "DELETE FROM events WHERE event_key = 4", "entry 4 .* gone from the log"),
        ("event_links", "DELETE FROM event_links WHERE position = 2", "entry 2 is missing"),
        ("event_links", "DELETE FROM event_links WHERE position > 3", "entry 4 is missing"),
        (
            "event_links",
            f"UPDATE event_links SET sha256 = '{BEGINNING}' WHERE position = 1",
            "entry 1 .* not what was",
        ),
        ("event_links", "DELETE FROM unchained_events", "event 6 was never chained"),
    ],
)
def test_the_first_broken_entry_is_named(
    any_database: Database, table: str, statement: str, found: str
) -> None:
    write(any_database, 5)
    chain_new_entries(any_database)
    write(any_database)
    tamper(any_database, table, statement)
    report = report_of(any_database)
    assert not report.intact
    assert re.search(found, report.broken or ""), report.broken


def test_places_in_the_chain_cannot_be_changed_by_accident(any_database: Database) -> None:
    write(any_database)
    chain_new_entries(any_database)
    for statement in ("UPDATE event_links SET position = 9", "DELETE FROM event_links"):
        with pytest.raises(DBAPIError, match="append-only"), any_database.writing() as session:
            session.execute(text(statement))


def test_a_log_that_was_rewritten_as_a_whole_lacks_the_noted_head(any_database: Database) -> None:
    write(any_database, 3)
    chain_new_entries(any_database)
    noted = report_of(any_database).head
    write(any_database)
    chain_new_entries(any_database)
    assert report_of(any_database, noted).intact

    tamper(any_database, "events", "UPDATE events SET kind = 'x' WHERE event_key = 1")
    tamper(any_database, "event_links", "DELETE FROM event_links")
    with any_database.writing() as session:
        head = BEGINNING
        for position, event in enumerate(
            session.scalars(select(Event).order_by(Event.event_key)).all(), start=1
        ):
            head = entry_hash(head, event)
            session.add(EventLink(position=position, event_key=event.event_key, sha256=head))
    assert report_of(any_database).broken is None
    report = report_of(any_database, noted)
    assert (report.noted_head_found, report.intact) == (False, False)


def test_a_log_that_was_cut_off_without_a_trace_lacks_the_noted_head(
    any_database: Database,
) -> None:
    write(any_database, 5)
    chain_new_entries(any_database)
    noted = report_of(any_database).head
    for table, statement in (
        ("events", "DELETE FROM events WHERE event_key > 3"),
        ("event_links", "DELETE FROM event_links WHERE position > 3"),
        ("log_cursors", "UPDATE log_cursors SET position = 3 WHERE reader = 'chain'"),
    ):
        assert report_of(any_database).intact is (table == "events")
        tamper(any_database, table, statement)
    # Who owns the database can cut it so that it fits; what was noted elsewhere tells.
    assert report_of(any_database).broken is None
    report = report_of(any_database, noted)
    assert (report.noted_head_found, report.intact) == (False, False)


@pytest.mark.interop
def test_an_entry_that_is_committed_late_comes_later_and_breaks_nothing(
    postgres_url: str,
) -> None:
    database = Database(postgres_url)
    database.upgrade_to_head()
    with database.writing() as slow:
        record(slow, EventKind.INSTANCE_STORED, AT)
        slow.flush()
        write(database, 2)
        assert chain_new_entries(database) == 2
    assert chain_new_entries(database) == 1
    with database.reading() as session:
        order = session.scalars(select(EventLink.event_key).order_by(EventLink.position)).all()
    assert list(order) == [2, 3, 1]
    assert report_of(database).intact
    database.close()


def test_writers_and_several_chainers_at_once_give_one_chain(any_database: Database) -> None:
    done = threading.Event()

    def chain_all() -> None:
        while not done.is_set() or chain_new_entries(any_database, 7):
            chain_new_entries(any_database, 7)

    chainers = [threading.Thread(target=chain_all) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(any_database, 5)) for _ in range(8)]
    for thread in [*chainers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in chainers:
        thread.join()
    report = report_of(any_database)
    assert (report.entries, report.waiting, report.broken) == (40, 0, None)
