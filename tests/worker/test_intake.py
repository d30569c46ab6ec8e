"""What the listener reports is in the database, once, and its study becomes ready in time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from dicom_io.access_control import Refusal
from tests.worker.arrivals import Clock, association, received
from worker.database import Database
from worker.events import EventKind
from worker.intake import DatabaseIntake
from worker.studies import Step, StudyState
from worker.study_steps import claim, take_step
from worker.tables import (
    Association,
    AssociationStudy,
    Event,
    Instance,
    InstanceConflict,
    Series,
    Study,
)

QUIET, LONGEST_WAIT = timedelta(seconds=3), timedelta(minutes=10)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake(any_database: Database, clock: Clock) -> DatabaseIntake:
    return DatabaseIntake(any_database, "test:11112", QUIET, LONGEST_WAIT, clock)


def only_study(database: Database) -> Study:
    with database.reading() as session:
        return session.scalars(select(Study)).one()


def count(database: Database, table: type) -> int:
    with database.reading() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def kinds(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(Event.kind).order_by(Event.event_key)))


def set_state(database: Database, state: StudyState) -> None:
    """Put the only study into a state by the steps that lead there."""
    way = {
        StudyState.READY: [(StudyState.READY, Step.BECAME_QUIET)],
        StudyState.DONE: [
            (StudyState.READY, Step.BECAME_QUIET),
            (StudyState.RUNNING, Step.CLAIMED),
            (StudyState.DONE, Step.NOTHING_TO_SEND),
        ],
    }[state]
    at = Clock().now
    with database.writing() as session:
        study = session.scalars(select(Study)).one()
        for target, step in way:
            assert take_step(session, study.study_key, study.state, target, step, at)
            session.refresh(study)


def test_a_study_waits_for_the_end_of_its_association_and_then_for_quiet(
    any_database: Database, intake: DatabaseIntake, clock: Clock
) -> None:
    first = association()
    started = clock.now
    intake.association_accepted(first)
    intake.instance_stored(first, received("1.2.3.1.1"))
    clock.forward(5)
    intake.instance_stored(first, received("1.2.3.1.2"))
    study = only_study(any_database)
    assert (study.state, study.revision) == (StudyState.RECEIVED, 1)
    assert study.ready_at == started + LONGEST_WAIT

    ended = clock.forward(5)
    intake.association_ended(first, released=True)
    assert only_study(any_database).ready_at == ended + QUIET
    with any_database.reading() as session:
        row = session.scalars(select(Association)).one()
        assert (row.ended_at, row.released) == (ended, True)
        assert session.scalars(select(Instance.revision)).all() == [1, 1]
        assert session.scalars(select(Series.series_uid)).all() == ["1.2.3.1"]


def test_a_study_waits_for_every_association_that_brought_part_of_it(
    any_database: Database, intake: DatabaseIntake, clock: Clock
) -> None:
    first, second, other = association(), association(), association()
    started = clock.now
    for one in (first, second, other):
        intake.association_accepted(one)
    intake.instance_stored(first, received("1.1"))
    intake.instance_stored(second, received("1.2"))
    intake.association_ended(first, released=True)
    assert only_study(any_database).ready_at == started + LONGEST_WAIT
    ended = clock.forward(7)
    intake.association_ended(second, released=False)
    assert only_study(any_database).ready_at == ended + QUIET, "the third brought nothing of it"


def test_a_restarted_listener_closes_what_it_left_open(
    any_database: Database, intake: DatabaseIntake, clock: Clock
) -> None:
    lost = association()
    intake.association_accepted(lost)
    intake.instance_stored(lost, received("1.1"))
    elsewhere = DatabaseIntake(any_database, "test:11113", QUIET, LONGEST_WAIT, clock)
    assert elsewhere.close_abandoned_associations() == 0

    restarted = DatabaseIntake(any_database, "test:11112", QUIET, LONGEST_WAIT, clock)
    at = clock.forward(20)
    assert restarted.close_abandoned_associations() == 1
    assert only_study(any_database).ready_at == at + QUIET


def test_the_same_bytes_again_make_no_work(
    any_database: Database, intake: DatabaseIntake, clock: Clock
) -> None:
    first, again = association(), association()
    intake.association_accepted(first)
    intake.instance_stored(first, received("1.1"))
    intake.association_ended(first, released=True)
    set_state(any_database, StudyState.DONE)

    intake.association_accepted(again)
    intake.instance_stored(again, received("1.1"))
    study = only_study(any_database)
    assert (study.state, study.revision) == (StudyState.DONE, 1)
    assert count(any_database, Instance) == 1
    assert EventKind.INSTANCE_REPEATED.value in kinds(any_database)


def test_other_bytes_under_a_known_uid_are_kept_as_conflict_and_the_first_stays(
    any_database: Database, intake: DatabaseIntake, caplog: pytest.LogCaptureFixture
) -> None:
    one = association()
    intake.association_accepted(one)
    first, other = received("1.1"), received("1.1", content="others")
    for instance in (first, other, other):
        intake.instance_stored(one, instance)
    with any_database.reading() as session:
        assert session.scalars(select(Instance.sha256)).all() == [first.stored.sha256]
        conflict = session.scalars(select(InstanceConflict)).one()
        assert conflict.sha256 == other.stored.sha256
        event = session.scalars(
            select(Event).where(Event.kind == EventKind.INSTANCE_CONFLICT.value)
        ).first()
    assert event is not None
    assert event.detail["kept_sha256"] == first.stored.sha256
    assert event.detail["other_sha256"] == other.stored.sha256
    assert "came again with other bytes" in caplog.text


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("StudyInstanceUID is missing", "Study, Series or SOP Instance UID is missing"),
        ("the dataset cannot be parsed (EOFError)", "not a readable DICOM object"),
    ],
)
def test_an_object_without_study_is_a_rejected_study_of_its_own(
    any_database: Database, intake: DatabaseIntake, problem: str, reason: str
) -> None:
    one = association()
    intake.association_accepted(one)
    bad = received("1.1", study_uid=None, series_uid=None, problem=problem)
    intake.instance_stored(one, bad)
    intake.instance_stored(one, bad)
    study = only_study(any_database)
    assert (study.study_uid, study.state) == (None, StudyState.REJECTED)
    assert study.reason == f"{reason} ({problem})"
    assert study.finished_at is not None
    assert count(any_database, Instance) == 1


def test_a_late_instance_opens_a_new_revision_and_voids_the_work_under_way(
    any_database: Database, intake: DatabaseIntake, clock: Clock
) -> None:
    one = association()
    intake.association_accepted(one)
    intake.instance_stored(one, received("1.1"))
    set_state(any_database, StudyState.READY)
    with any_database.writing() as session:
        lease = claim(session, 1, clock.now, timedelta(seconds=15))
    assert lease is not None
    at = clock.forward(60)
    intake.instance_stored(one, received("1.2"))
    study = only_study(any_database)
    assert (study.state, study.revision) == (StudyState.RECEIVED, 2)
    assert (study.lease_token, study.attempts) == (None, 0)
    assert study.revision_started_at == at
    with any_database.reading() as session:
        revisions = session.scalars(select(Instance.revision).order_by(Instance.instance_key)).all()
    assert revisions == [1, 2]


def test_an_instance_before_the_work_began_stays_in_the_revision(
    any_database: Database, intake: DatabaseIntake, clock: Clock
) -> None:
    one = association()
    started = clock.now
    intake.association_accepted(one)
    intake.instance_stored(one, received("1.1"))
    set_state(any_database, StudyState.READY)
    clock.forward(30)
    intake.instance_stored(one, received("1.2"))
    study = only_study(any_database)
    assert (study.state, study.revision) == (StudyState.RECEIVED, 1)
    assert study.ready_at == started + LONGEST_WAIT, "the limit counts from the first instance"


def test_the_same_study_from_many_associations_at_once_is_one_study(
    any_database: Database, intake: DatabaseIntake
) -> None:
    def send(number: int) -> None:
        one = association(f"CR{number}")
        intake.association_accepted(one)
        for instance in range(4):
            # Every second instance comes from all of them.
            own = number if instance % 2 else 0
            intake.instance_stored(one, received(f"1.{own}.{instance}"))
        intake.association_ended(one, released=True)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(1, 7)))
    study = only_study(any_database)
    assert count(any_database, Instance) == 2 + 6 * 2
    assert count(any_database, AssociationStudy) == 6
    assert study.ready_at == study.last_change_at + QUIET


def test_an_end_that_the_database_could_not_take_is_noted_later(
    database: Database, clock: Clock
) -> None:
    intake = DatabaseIntake(database, "test:11112", QUIET, LONGEST_WAIT, clock)
    one = association()
    intake.association_accepted(one)
    intake.instance_stored(one, received("1.1"))
    with database.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE associations RENAME TO away")
        connection.commit()
    ended = clock.forward(1)
    with pytest.raises(Exception, match="no such table"):
        intake.association_ended(one, released=True)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO associations")
        connection.commit()
    clock.forward(9)
    intake.retry_unrecorded()
    assert only_study(database).ready_at == ended + QUIET


def test_a_flood_of_refusals_does_not_fill_the_log(database: Database, clock: Clock) -> None:
    intake = DatabaseIntake(database, "test:11112", QUIET, LONGEST_WAIT, clock)
    for _ in range(500):
        intake.association_refused(association("INTRUDER"), Refusal.UNKNOWN_CALLING)
    for number in range(400):
        intake.association_refused(association(f"INTRUDER{number}"), Refusal.UNKNOWN_CALLING)
    assert len(kinds(database)) <= 10
    clock.forward(61)
    intake.association_refused(association("INTRUDER"), Refusal.UNKNOWN_CALLING)
    with database.reading() as session:
        last = session.scalars(select(Event).order_by(Event.event_key.desc())).first()
    assert last is not None
    assert last.detail["refused_before_unlogged"] == 499
