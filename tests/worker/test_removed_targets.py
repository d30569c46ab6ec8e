"""A target that the settings no longer name is not called; what waits for it is not lost."""

from datetime import timedelta
from pathlib import Path

import pytest

from dicom_io.commitment_service import request_commitment
from dicom_io.remote import RemoteAE
from dicom_io.sender import send
from tests.worker.bench import DELIVERY_RULES, Bench
from tests.worker.committing_scp import CommittingScp
from tests.worker.readings import chest_film
from tests.worker.storage_scp import StorageScp, storage_scp
from worker.addresses import Target
from worker.commitment_requests import CommitmentRequester, CommitmentRules
from worker.database import Database
from worker.peers import enter_targets
from worker.requeueing import requeue_study
from worker.studies import StudyState
from worker.tables import DeliveryState

GIVE_UP_AFTER = timedelta(hours=72)


@pytest.fixture
def bench(any_database: Database, tmp_path: Path, target: Target) -> Bench:
    """Results of one study wait for a target."""
    bench = Bench(any_database, tmp_path / "store", target)
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    return bench


def name(bench: Bench, *targets: Target) -> None:
    with bench.database.writing() as session:
        enter_targets(session, targets)


def requeue(bench: Bench) -> StudyState:
    with bench.database.writing() as session:
        return requeue_study(session, 1, bench.clock())


def states(bench: Bench) -> list[DeliveryState]:
    return [delivery.state for delivery in bench.deliveries]


def test_nothing_is_sent_to_it_until_it_is_named_again(
    bench: Bench, scp: StorageScp, target: Target
) -> None:
    name(bench)
    bench.sweeper.sweep()
    assert bench.waker.senders == []
    bench.sender(send).deliver_to(1)
    assert scp.associations == 0
    assert states(bench) == [DeliveryState.PENDING] * 2
    assert bench.study().state is StudyState.DELIVERING

    name(bench, target)
    bench.sweeper.sweep()
    assert bench.waker.senders == [1]
    bench.sender(send).deliver_to(1)
    assert len(scp.received) == 2
    assert bench.study().state is StudyState.DONE


def test_what_waits_too_long_for_it_becomes_a_dead_letter_that_says_so(
    bench: Bench, scp: StorageScp
) -> None:
    name(bench)
    bench.clock.now += GIVE_UP_AFTER - timedelta(seconds=1)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.DELIVERING
    bench.clock.forward(1)
    bench.sweeper.sweep()
    assert states(bench) == [DeliveryState.FAILED] * 2
    study = bench.study()
    assert study.state is StudyState.FAILED
    assert "2 x not sent to PACS: the settings no longer name it" in (study.reason or "")


def test_a_requeue_gives_up_its_dead_letters_and_reads_nothing_again(
    bench: Bench, scp: StorageScp
) -> None:
    scp.answer = lambda uid: 0xC000
    bench.sender(send).deliver_to(1)
    assert bench.study().state is StudyState.FAILED
    name(bench)
    bench.waker.readers.clear()
    requeue(bench)
    bench.sweeper.sweep()
    assert states(bench) == [DeliveryState.TARGET_REMOVED] * 2
    study = bench.study()
    assert (study.state, study.reason) == (StudyState.DONE, None)
    assert bench.waker.readers == bench.waker.senders == []


def test_a_requeue_sends_its_dead_letters_when_it_is_named_again(
    bench: Bench, scp: StorageScp, target: Target
) -> None:
    name(bench)
    bench.clock.now += GIVE_UP_AFTER
    bench.sweeper.sweep()
    requeue(bench)
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.DONE
    name(bench, target)
    requeue(bench)
    bench.sweeper.sweep()
    bench.reader().read_study(1)
    bench.sender(send).deliver_to(1)
    assert states(bench) == [DeliveryState.DELIVERED] * 2
    assert bench.study().state is StudyState.DONE
    assert len(scp.received) == 2


def test_other_targets_are_served_as_before(
    database: Database, tmp_path: Path, target: Target
) -> None:
    with storage_scp() as (other_scp, other):
        other = other.model_copy(update={"name": "OTHER"})
        bench = Bench(database, tmp_path / "store", target, other)
        bench.receive(chest_film("1.2.3"))
        assert bench.reader().read_study(1) == [1, 2]
        name(bench, other)
        bench.sweeper.sweep()
        assert bench.waker.senders == [2]
        bench.sender(send).deliver_to(2)
        assert len(other_scp.received) == 2
        bench.receive(chest_film("1.2.3", 2))
        assert bench.reader().read_study(1) == [2]


def test_it_is_not_asked_to_commit(database: Database, tmp_path: Path) -> None:
    committing = CommittingScp()
    with committing.running() as target:
        bench = Bench(database, tmp_path / "store", target)
        bench.receive(chest_film("1.2.3"))
        bench.reader().read_study(1)
        bench.sender(send).deliver_to(1)
        name(bench)
        CommitmentRequester(
            database,
            lambda request, remote: request_commitment(request, remote, 0),
            RemoteAE,
            CommitmentRules(timedelta(minutes=10), DELIVERY_RULES.backoff, GIVE_UP_AFTER),
            bench.clock,
        ).ask(1)
        assert committing.asked == []
    bench.clock.now += GIVE_UP_AFTER
    bench.sweeper.sweep()
    assert bench.study().state is StudyState.FAILED
