"""A result counts as delivered only when its target has committed to keep it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_io.commitment_service import request_commitment
from dicom_io.remote import RemoteAE
from dicom_io.sender import send
from dicom_io.storage_commitment import CommitmentResult
from tests.worker.bench import DELIVERY_RULES, Bench
from tests.worker.committing_scp import CommittingScp
from tests.worker.readings import chest_film
from worker.addresses import Target
from worker.commitment_answers import enter_report
from worker.commitment_requests import CommitmentRequester, CommitmentRules
from worker.commitment_tables import CommitmentRequest
from worker.database import Database
from worker.peers import enter_targets
from worker.studies import StudyState
from worker.tables import DeliveryState, Event

RULES = CommitmentRules(
    wait=timedelta(minutes=10), backoff=DELIVERY_RULES.backoff, give_up_after=timedelta(hours=72)
)
AWAITING, DELIVERED = DeliveryState.AWAITING_COMMITMENT, DeliveryState.DELIVERED


@pytest.fixture
def scp() -> CommittingScp:
    return CommittingScp()


@pytest.fixture
def target(scp: CommittingScp) -> Iterator[Target]:
    with scp.running() as running:
        yield running


@pytest.fixture
def bench(any_database: Database, tmp_path: Path, target: Target) -> Bench:
    bench = Bench(any_database, tmp_path / "store", target)
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    bench.sender(send).deliver_to(1)
    return bench


def requester(bench: Bench, wait_seconds: float = 5.0) -> CommitmentRequester:
    return CommitmentRequester(
        bench.database,
        lambda request, remote: request_commitment(request, remote, wait_seconds),
        RemoteAE,
        RULES,
        bench.clock,
    )


def states(bench: Bench) -> list[DeliveryState]:
    return [delivery.state for delivery in bench.deliveries]


def test_what_is_stored_is_delivered_when_the_target_has_committed(
    bench: Bench, scp: CommittingScp
) -> None:
    assert states(bench) == [AWAITING, AWAITING]
    assert bench.study().state is StudyState.DELIVERING
    bench.sweeper.wake_senders()
    assert bench.waker.senders == [1]
    requester(bench).ask(1)
    [question] = scp.asked
    assert {ref.sop_instance_uid for ref in question.references} == set(scp.received)
    assert states(bench) == [DELIVERED, DELIVERED]
    assert bench.study().state is StudyState.DONE
    assert [row.answered_at for row in bench.all(CommitmentRequest)] == [bench.clock()]
    assert [e.kind for e in bench.all(Event)].count("result committed") == 2


def test_what_is_not_committed_is_sent_again_and_asked_for_again(
    bench: Bench, scp: CommittingScp
) -> None:
    lost = scp.received[0]
    scp.uncommitted = {lost}
    requester(bench).ask(1)
    assert sorted(states(bench), key=str) == sorted([DeliveryState.PENDING, DELIVERED], key=str)
    assert bench.study().state is StudyState.DELIVERING
    scp.uncommitted = set()
    bench.clock.forward(10)
    bench.sender(send).deliver_to(1)
    assert scp.received.count(lost) == 2
    requester(bench).ask(1)
    assert states(bench) == [DELIVERED, DELIVERED]
    assert bench.study().state is StudyState.DONE


def test_a_question_without_an_answer_is_asked_again_and_a_late_answer_still_counts(
    bench: Bench, scp: CommittingScp
) -> None:
    scp.reports = False
    for _ in range(3):
        requester(bench, wait_seconds=0).ask(1)
    assert len(scp.asked) == 1
    bench.clock.now += RULES.wait
    requester(bench, wait_seconds=0).ask(1)
    first, second = scp.asked
    assert first.transaction_uid != second.transaction_uid
    with bench.database.writing() as session:
        enter_report(session, "PACS", scp.result_of(first), RULES, bench.clock())
    assert states(bench) == [DELIVERED, DELIVERED]
    with bench.database.writing() as session:  # and once more
        enter_report(session, "PACS", scp.result_of(second), RULES, bench.clock())
    assert bench.study().state is StudyState.DONE


def test_nobody_else_can_commit_in_the_targets_name(bench: Bench, scp: CommittingScp) -> None:
    scp.reports = False
    requester(bench, wait_seconds=0).ask(1)
    result = scp.result_of(scp.asked[0])
    strange = CommitmentResult("1.2.3.4", result.committed)
    for calling, report in (("OTHER", result), ("PACS", strange)):
        with (
            bench.database.writing() as session,
            pytest.raises(ValueError, match="no question of ours"),
        ):
            enter_report(session, calling, report, RULES, bench.clock())
    assert states(bench) == [AWAITING, AWAITING]


def test_what_is_never_committed_becomes_a_dead_letter_with_its_reason(
    bench: Bench, scp: CommittingScp
) -> None:
    scp.reports = False
    requester(bench, wait_seconds=0).ask(1)
    bench.clock.now += RULES.give_up_after
    requester(bench, wait_seconds=0).ask(1)
    assert states(bench) == [DeliveryState.FAILED, DeliveryState.FAILED]
    study = bench.study()
    assert study.state is StudyState.FAILED
    assert "never committed" in (study.reason or "")


def test_a_study_stays_open_until_the_target_commits_though_a_film_without_result_joins_it(
    bench: Bench, scp: CommittingScp
) -> None:
    bench.receive(chest_film("1.2.3", 2, ViewPosition="LL"))
    bench.reader().read_study(1)
    assert states(bench) == [AWAITING, AWAITING]
    assert bench.study().state is StudyState.DELIVERING
    scp.reports = False
    bench.clock.now += RULES.give_up_after
    requester(bench, wait_seconds=0).ask(1)
    study = bench.study()
    assert study.state is StudyState.FAILED
    assert "never committed" in (study.reason or "")


def test_a_target_that_is_no_longer_to_commit_has_what_it_has_stored(
    bench: Bench, target: Target
) -> None:
    with bench.database.writing() as session:
        enter_targets(session, [target.model_copy(update={"commit": False})])
    requester(bench).ask(1)
    assert states(bench) == [DELIVERED, DELIVERED]
    assert bench.study().state is StudyState.DONE


def test_a_target_without_storage_commitment_leaves_a_reason(
    database: Database, tmp_path: Path, scp: CommittingScp
) -> None:
    with scp.running(offers_commitment=False) as target:
        bench = Bench(database, tmp_path / "store", target)
        bench.receive(chest_film("1.2.3"))
        bench.reader().read_study(1)
        bench.sender(send).deliver_to(1)
        requester(bench).ask(1)
    assert states(bench) == [AWAITING, AWAITING]
    assert all("offers no storage commitment" in (d.reason or "") for d in bench.deliveries)
