"""What refused peers can make the node write is bounded by the clock, and blinds nobody."""

import pytest
from sqlalchemy import select

from dicom_io.access_control import Refusal
from tests.worker.arrivals import Clock, association
from worker.database import Database
from worker.refusal_log import KINDS_AT_ONCE, KINDS_OF_ADDRESS, MANY, RefusalLog
from worker.tables import Event

UNKNOWN = Refusal.UNKNOWN_CALLING
A_DAY = 24 * 3600


@pytest.fixture
def clock() -> Clock:
    return Clock()


def told(database: Database) -> list[dict]:
    with database.reading() as session:
        return list(session.scalars(select(Event.detail).order_by(Event.event_key)))


def test_a_peer_that_knocks_for_a_day_is_told_of_about_once_an_hour(
    database: Database, clock: Clock
) -> None:
    log, knocks = RefusalLog(database), A_DAY // 20
    for _ in range(knocks):
        log.add(association("CT7"), UNKNOWN, clock.forward(20))
    entries = told(database)
    assert 24 <= len(entries) <= 32
    counted = len(entries) + sum(entry["refused_before_unlogged"] for entry in entries)
    assert knocks - 3600 // 20 <= counted <= knocks


def test_another_name_or_another_reason_is_told_of_at_once(
    database: Database, clock: Clock
) -> None:
    log = RefusalLog(database)
    log.add(association("CT7"), UNKNOWN, clock())
    log.add(association("CT7"), Refusal.TOO_MANY_OF_PEER, clock())
    log.add(association("CT8"), UNKNOWN, clock())
    assert [entry["calling"] for entry in told(database)] == ["CT7", "CT7", "CT8"]


def test_an_address_with_ever_new_names_neither_fills_the_log_nor_hides_another(
    database: Database, clock: Clock
) -> None:
    log = RefusalLog(database)
    for number in range(5000):
        log.add(association(f"X{number}", "10.0.0.66"), UNKNOWN, clock.forward(1))
    entries = told(database)
    assert KINDS_OF_ADDRESS < len(entries) < KINDS_OF_ADDRESS + 10
    assert entries[-1]["calling"] == MANY
    assert entries[-1]["refused_before_unlogged"] > 1000
    log.add(association("CT7", "10.0.0.7"), UNKNOWN, clock())
    assert told(database)[-1]["calling"] == "CT7"


def test_ever_new_addresses_are_told_of_no_faster_than_the_clock_allows(
    database: Database, clock: Clock
) -> None:
    log, minutes = RefusalLog(database), 20
    for number in range(minutes * 600):
        log.add(association("X", f"fd00::{number:x}"), UNKNOWN, clock.forward(0.1))
    entries = told(database)
    assert KINDS_AT_ONCE <= len(entries) <= KINDS_AT_ONCE + minutes + 10
    assert [entry["host"] for entry in entries].count(MANY) >= 1


def test_who_comes_again_after_a_quiet_day_is_told_of_at_once(
    database: Database, clock: Clock
) -> None:
    log = RefusalLog(database)
    for _ in range(1000):
        log.add(association("CT7"), UNKNOWN, clock.forward(1))
    before = len(told(database))
    clock.forward(A_DAY)
    log.add(association("CT7"), UNKNOWN, clock())
    assert len(told(database)) == before + 1
    log.add(association("CT7"), UNKNOWN, clock.forward(61))
    assert len(told(database)) == before + 2


def test_what_was_counted_and_never_told_is_told_when_it_is_forgotten(
    database: Database, clock: Clock, caplog
) -> None:
    log = RefusalLog(database)
    for _ in range(5):
        log.add(association("CT7"), UNKNOWN, clock())
    clock.forward(A_DAY)
    log.add(association("CT8"), UNKNOWN, clock())
    assert [line for line in caplog.messages if line.startswith("4 more of")]
