"""What the database says is due is set going, also when the queue forgot it."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.worker.arrivals import association
from tests.worker.bench import PACS, Bench
from tests.worker.readings import bring, chest_film
from worker.database import Database
from worker.studies import StudyState
from worker.study_steps import claim
from worker.sweeping import Sweeper, SweepRules


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(database, tmp_path / "store", PACS)


def test_a_study_is_ready_when_its_quiet_time_has_passed_and_not_before(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path / "store", PACS)
    one = association()
    bench.intake.association_accepted(one)
    bring(chest_film("1.2.3"), bench.store, bench.intake, one)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.RECEIVED
    bench.intake.association_ended(one, released=True)
    bench.clock.forward(2.9)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.RECEIVED
    bench.clock.forward(0.1)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.READY
    assert bench.waker.readers == [1]
    assert bench.study().woken_at == bench.clock.now


def test_an_association_that_never_ends_delays_its_study_by_ten_minutes_at_most(
    bench: Bench,
) -> None:
    one = association()
    bench.intake.association_accepted(one)
    bring(chest_film("1.2.3"), bench.store, bench.intake, one)
    bench.clock.forward(599)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.RECEIVED
    bench.clock.forward(1)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.READY


YEAR = timedelta(days=365)


@pytest.mark.parametrize("ended_by", ["the wrong clock", "the right clock", "nothing"])
def test_a_clock_that_was_ahead_when_a_film_came_does_not_stop_its_study(
    any_database: Database, tmp_path: Path, ended_by: str
) -> None:
    bench = Bench(any_database, tmp_path / "store", PACS)
    one = association()
    bench.clock.now += YEAR
    bench.intake.association_accepted(one)
    bring(chest_film("1.2.3"), bench.store, bench.intake, one)
    if ended_by == "the wrong clock":
        bench.intake.association_ended(one, released=True)
    bench.clock.now -= YEAR
    if ended_by == "the right clock":
        bench.intake.association_ended(one, released=True)
        bench.sweeper.sweep()
        assert bench.study().state is StudyState.RECEIVED, "it has yet to be quiet"
    bench.clock.forward(3)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.READY
    assert bench.waker.readers == [1]


def test_a_clock_somewhat_behind_that_of_the_listener_ends_no_wait_early(bench: Bench) -> None:
    one = association()
    bench.clock.forward(60)
    bench.intake.association_accepted(one)
    bring(chest_film("1.2.3"), bench.store, bench.intake, one)
    bench.clock.forward(-60)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.RECEIVED


def test_a_wake_up_that_the_broker_lost_is_repeated_after_seconds(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    bench.waker.readers.clear()  # the queue is empty, and the study is still ready
    bench.clock.forward(4)
    bench.sweeper.sweep()
    assert bench.waker.readers == []
    bench.clock.forward(1)
    bench.sweeper.sweep()
    assert bench.waker.readers == [1]


def test_what_a_wiped_broker_forgot_is_found_though_new_messages_keep_it_filled(
    bench: Bench,
) -> None:
    for number in range(1, 5):
        bench.receive(chest_film(f"1.2.{number}"))
    heartbeat = 0
    bench.waker.readers[:] = [heartbeat]
    bench.clock.forward(5)
    bench.sweeper.sweep()
    assert bench.waker.readers == [heartbeat, 1, 2, 3, 4]
    bench.clock.forward(60)
    bench.sweeper.sweep()
    assert bench.waker.readers == [heartbeat, 1, 2, 3, 4], "now each has yet to be its turn"


def test_a_wake_up_that_has_yet_to_be_its_turn_is_not_repeated(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    for _ in range(20):
        bench.clock.forward(20)
        bench.sweeper.sweep()
    assert bench.waker.readers == [1]
    bench.clock.forward(200)
    bench.sweeper.sweep()
    assert bench.waker.readers == [1, 1], "but not trusted for ever"


def test_while_the_broker_is_away_studies_wait_and_are_woken_when_it_is_back(bench: Bench) -> None:
    bench.waker.away = True
    bench.receive(chest_film("1.2.3"))
    assert bench.study().state is StudyState.READY
    assert bench.study().woken_at is None
    bench.clock.forward(3600)
    bench.sweeper.sweep()
    bench.waker.away = False
    bench.sweeper.sweep()
    assert bench.waker.readers == [1]


def test_a_long_queue_waits_in_the_database(bench: Bench) -> None:
    sweeper = Sweeper(
        bench.database, bench.waker, SweepRules(most_attempts=3, longest_queue=2), bench.clock
    )
    bench.sweeper = sweeper
    for number in range(1, 5):
        bench.receive(chest_film(f"1.2.{number}"))
    assert bench.waker.readers == [1, 2]
    # The first two are taken; now the others have their turn.
    with bench.database.writing() as session:
        for key in (1, 2):
            assert claim(session, key, bench.clock.now, timedelta(hours=1)) is not None
    bench.waker.readers.clear()
    sweeper.sweep()
    assert bench.waker.readers == [3, 4]


def test_a_lease_without_sign_of_life_is_taken_back_and_its_study_read_by_another(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path / "store", PACS)
    bench.receive(chest_film("1.2.3"))
    with any_database.writing() as session:
        lost = claim(session, 1, bench.clock.now, timedelta(seconds=15))
    assert lost is not None
    bench.clock.forward(14)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.RUNNING
    bench.clock.forward(1)
    bench.waker.readers.clear()
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.READY
    assert bench.waker.readers == [1]
    bench.reader().read_study(1)
    assert bench.study().state is StudyState.DELIVERING


def test_results_that_nobody_was_woken_for_are_sent_all_the_same(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    bench.sweeper.sweep()
    assert bench.waker.senders == [1]
    bench.clock.forward(1)
    bench.sweeper.sweep()
    assert bench.waker.senders == [1]
    bench.clock.forward(5)
    bench.sweeper.sweep()
    assert bench.waker.senders == [1, 1]


def test_heartbeats_go_through_both_queues_and_soon_again_where_the_broker_was_away(
    bench: Bench,
) -> None:
    bench.sweeper.sweep()
    assert sorted(bench.waker.heartbeats) == ["delivery", "reading"]
    bench.clock.forward(4)
    bench.sweeper.sweep()
    assert len(bench.waker.heartbeats) == 2
    bench.waker.away = True
    bench.clock.forward(1)
    bench.sweeper.sweep()
    bench.waker.away = False
    bench.clock.forward(1)
    bench.sweeper.sweep()
    assert sorted(bench.waker.heartbeats[-2:]) == ["delivery", "reading"]
