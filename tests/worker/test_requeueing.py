"""An operator's second chance takes up a study where it stopped."""

from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_io.errors import IllegalTransition
from dicom_io.sender import send
from tests.worker.arrivals import association
from tests.worker.bench import PACS, Bench
from tests.worker.readings import DrawnReading, bring, chest_film, reader_of
from tests.worker.storage_scp import storage_scp
from worker.database import Database
from worker.requeueing import failed_studies, requeue_study
from worker.studies import StudyState
from worker.tables import DeliveryState, InferenceState


def requeue(bench: Bench, study_key: int = 1) -> StudyState:
    with bench.database.writing() as session:
        return requeue_study(session, study_key, bench.clock.now)


def test_dead_letters_are_sent_again_without_reading_anything_again(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (scp, target):
        bench = Bench(any_database, tmp_path / "store", target)
        bench.receive(chest_film("1.2.3"))
        bench.reader().read_study(1)
        scp.answer = lambda uid: 0xC000
        bench.sender(send).deliver_to(1)
        assert bench.study().state is StudyState.FAILED
        with any_database.reading() as session:
            assert failed_studies(session) == [1]

        bench.clock.forward(100 * 3600)
        assert requeue(bench) is StudyState.DELIVERING
        scp.answer = lambda uid: 0x0000
        bench.sender(send).deliver_to(1)
        assert bench.study().state is StudyState.DONE
        assert len(scp.received) == 2
        assert {d.state for d in bench.deliveries} == {DeliveryState.DELIVERED}
        assert bench.inferences[0].attempts == 1


def test_a_film_that_could_not_be_read_gets_all_of_its_attempts_again(
    database: Database, tmp_path: Path
) -> None:
    def fail(dataset: Dataset) -> DrawnReading:
        raise MemoryError

    bench = Bench(database, tmp_path / "store", PACS)
    bench.receive(chest_film("1.2.3"))
    bench.reader(read=fail, most_attempts=1).read_study(1)
    assert bench.study().state is StudyState.FAILED
    assert requeue(bench) is StudyState.READY
    bench.sweeper.sweep()
    assert bench.waker.readers[-1] == 1
    bench.reader().read_study(1)
    assert bench.study().state is StudyState.DELIVERING
    assert [i.state for i in bench.inferences] == [InferenceState.READ]


def test_a_rejected_study_can_be_read_again_and_stays_rejected_if_nothing_has_changed(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path / "store", PACS)
    bench.receive(chest_film("1.2.3", BodyPartExamined="KNEE"))
    bench.reader().read_study(1)
    assert requeue(bench) is StudyState.READY
    bench.reader(read=reader_of()).read_study(1)
    assert bench.study().state is StudyState.REJECTED


def test_what_is_at_work_or_names_no_study_is_not_requeued(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path / "store", PACS)
    bench.receive(chest_film("1.2.3"))
    with pytest.raises(IllegalTransition, match="still at work"):
        requeue(bench)
    one = association()
    bench.intake.association_accepted(one)
    nameless = chest_film("1.9")
    del nameless.StudyInstanceUID
    bring(nameless, bench.store, bench.intake, one)
    with pytest.raises(IllegalTransition, match="names no study"):
        requeue(bench, study_key=2)
