"""Peers are told what is safe here, also after a restart; and only that."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from dicom_io.remote import RemoteAE
from dicom_io.storage_commitment import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    CommitmentRequest,
    DueReport,
    InstanceReference,
)
from tests.worker.arrivals import association
from tests.worker.bench import DELIVERY_RULES, PACS, Bench
from tests.worker.readings import chest_film
from worker.commitment_register import (
    DatabaseCommitmentRegister,
    ReportRules,
    TooManyQuestions,
)
from worker.commitment_tables import CommitmentQuestion
from worker.database import Database
from worker.tables import Event

RULES = ReportRules(DELIVERY_RULES.backoff, timedelta(hours=72))
MODALITY = RemoteAE("MODALITY", "127.0.0.1", 104)


@pytest.fixture
def bench(any_database: Database, tmp_path: Path) -> Bench:
    return Bench(any_database, tmp_path / "store", PACS)


def register(bench: Bench, address: RemoteAE | None = MODALITY) -> DatabaseCommitmentRegister:
    return DatabaseCommitmentRegister(
        bench.database, bench.store, "bench:1", lambda calling, host: address, RULES, bench.clock
    )


def question(*references: InstanceReference) -> CommitmentRequest:
    return CommitmentRequest(generate_uid(prefix=None), references)


def kept_film(bench: Bench) -> InstanceReference:
    bench.receive(chest_film("1.2.3"))
    [instance] = bench.instances
    return InstanceReference(instance.sop_class_uid, str(instance.sop_instance_uid))


def due(bench: Bench) -> list[DueReport]:
    return list(register(bench).due_reports())


def test_only_what_lies_here_unchanged_is_committed(bench: Bench) -> None:
    film = kept_film(bench)
    unknown = InstanceReference(film.sop_class_uid, "1.2.3.4")
    misnamed = InstanceReference("1.2.840.10008.5.1.4.1.1.2", film.sop_instance_uid)
    result = register(bench).result_of(question(film, unknown, film, misnamed))
    assert result.committed == (film,)
    assert result.failed == ((unknown, NO_SUCH_INSTANCE), (misnamed, CLASS_INSTANCE_CONFLICT))
    path = bench.store.path_of(bench.instances[0].relative_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = register(bench).result_of(question(film))
    assert (result.committed, result.failed) == ((), ((film, PROCESSING_FAILURE),))
    path.unlink()
    assert register(bench).result_of(question(film)).committed == ()


def test_a_result_of_ours_that_came_back_is_safe_too(bench: Bench) -> None:
    kept_film(bench)
    bench.reader().read_study(1)
    made = bench.results[0]
    own = InstanceReference(made.sop_class_uid, made.sop_instance_uid)
    assert register(bench).result_of(question(own)).committed == (own,)


def test_a_question_stands_until_its_answer_is_reported(bench: Bench) -> None:
    asked = question(InstanceReference("1.2", "1.2.3"))
    one = association()
    for _ in range(2):  # a requestor that repeats itself
        register(bench).take_request(one, asked)
    [report] = due(bench)
    assert (report.request, report.association_uid) == (asked, one.association_uid)
    assert report.remote == MODALITY
    register(bench).reported(report)
    assert due(bench) == []
    assert [e.kind for e in bench.all(Event)][-1] == "commitment reported"


def test_a_requestor_that_is_away_is_told_later_and_in_the_end_no_more(bench: Bench) -> None:
    register(bench).take_request(association(), question(InstanceReference("1.2", "1.2.3")))
    [report] = due(bench)
    register(bench).not_reported(report, "it is away")
    assert due(bench) == []
    bench.clock.forward(5)
    assert due(bench) == [report]
    bench.clock.now += RULES.give_up_after
    register(bench).not_reported(report, "it is away")
    assert bench.all(CommitmentQuestion) == []
    dropped = bench.all(Event)[-1]
    assert (dropped.kind, dropped.detail["reason"]) == ("commitment dropped", "it is away")


def test_a_requestor_that_cannot_be_reached_in_any_way_is_not_waited_for(bench: Bench) -> None:
    unreachable = register(bench, address=None)
    unreachable.take_request(association(), question(InstanceReference("1.2", "1.2.3")))
    [report] = unreachable.due_reports()
    unreachable.not_reported(report, "it left")
    assert bench.all(CommitmentQuestion) == []


def test_peers_cannot_fill_the_database_with_questions(bench: Bench) -> None:
    def ask_until_refused() -> int:
        for count in range(300):
            try:
                register(bench).take_request(association(), question())
            except TooManyQuestions:
                return count
        return 300

    assert ask_until_refused() == 50
    assert len(bench.all(CommitmentQuestion)) == 50
