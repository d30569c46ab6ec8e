"""A ready study is read once, whatever goes wrong on the way, and ends where it should."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import (
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_io.errors import CheckpointError
from dicom_io.findings import ModelIdentity, Verdict
from dicom_io.uids import ResultKind, result_uid
from tests.dicom_io.sources import MODEL
from tests.worker.bench import ARCHIVE, PACS, Bench
from tests.worker.readings import DrawnReading, chest_film, reader_of
from worker.database import Database
from worker.models import register_model
from worker.studies import StudyState
from worker.study_steps import claim
from worker.tables import DeliveryState, InferenceState

NEWER_MODEL = ModelIdentity("MultiMix", "0.2.0", "ab" * 32)


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(database, tmp_path / "store", PACS, ARCHIVE)


@pytest.fixture
def any_bench(any_database: Database, tmp_path: Path) -> Bench:
    """A bench on each kind of database."""
    return Bench(any_database, tmp_path / "store", PACS, ARCHIVE)


def test_a_film_becomes_results_that_wait_for_every_target(any_bench: Bench) -> None:
    bench = any_bench
    film = chest_film("1.2.3")
    bench.receive(film)
    assert bench.waker.readers == [1]
    assert sorted(bench.reader().read_study(1)) == [1, 2]

    assert bench.steps == ["ready", "running", "delivering"]
    (inference,) = bench.inferences
    assert (inference.state, inference.attempts) == (InferenceState.READ, 1)
    assert (inference.verdict, inference.probability) == (Verdict.PNEUMONIA, 0.87)
    assert inference.lung_area_percent == pytest.approx(27, abs=5)
    assert [r.kind for r in bench.results] == [
        ResultKind.SEGMENTATION,
        ResultKind.SECONDARY_CAPTURE,
        ResultKind.PRESENTATION_STATE,
    ]
    for result in bench.results:
        expected = result_uid(film.SOPInstanceUID, MODEL.version, result.kind)
        stored = bench.store.read(result.relative_path)
        assert stored.SOPInstanceUID == expected == result.sop_instance_uid
        assert stored.StudyInstanceUID == "1.2.3"
        assert result.series_uid == stored.SeriesInstanceUID
    assert {r.sop_class_uid for r in bench.results} == {
        SegmentationStorage,
        SecondaryCaptureImageStorage,
        GrayscaleSoftcopyPresentationStateStorage,
    }
    # The presentation state is made in case that a target takes no segmentations.
    assert {(d.result_key, d.peer_key) for d in bench.deliveries} == {
        (result, peer) for result in (1, 2) for peer in (1, 2)
    }
    assert {d.next_attempt_at for d in bench.deliveries} == {bench.clock.now}


def test_a_second_wake_up_finds_nothing_to_do(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    reader = bench.reader()
    reader.read_study(1)
    assert reader.read_study(1) == []
    assert len(bench.inferences) == 1
    assert bench.steps.count("running") == 1


def test_without_a_target_the_study_is_done(database: Database, tmp_path: Path) -> None:
    bench = Bench(database, tmp_path / "store")
    bench.receive(chest_film("1.2.3"))
    assert bench.reader().read_study(1) == []
    assert bench.study().state is StudyState.DONE
    assert len(bench.results) == 2


def test_a_study_without_a_chest_film_is_rejected_with_the_reason(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3", BodyPartExamined="KNEE"))
    bench.reader().read_study(1)
    study = bench.study()
    assert (study.state, study.reason) == (StudyState.REJECTED, "not a chest radiograph")
    assert bench.inferences[0].rejection == "NOT_CHEST"
    assert bench.results == []


def test_a_rejected_film_among_others_keeps_its_reason_and_the_others_go_on(bench: Bench) -> None:
    bench.receive(
        chest_film("1.2.3", 1, ViewPosition="LL"),
        chest_film("1.2.3", 2),
    )
    bench.reader().read_study(1)
    assert bench.study().state is StudyState.DELIVERING
    assert [i.state for i in bench.inferences] == [InferenceState.REJECTED, InferenceState.READ]
    assert bench.inferences[0].reason == "not a frontal view (view position LL)"
    assert {d.result_key for d in bench.deliveries} == {1, 2}


def failing_on(number: int, times: int) -> "ReadsSometimes":
    return ReadsSometimes(f".1.{number}", times)


class ReadsSometimes:
    """Fails on one film a number of times, with patient data in the error."""

    def __init__(self, ending: str, times: int) -> None:
        self.ending, self.left, self.calls = ending, times, 0

    def __call__(self, dataset: Dataset) -> DrawnReading:
        if dataset.SOPInstanceUID.endswith(self.ending):
            self.calls += 1
            if self.left:
                self.left -= 1
                raise ValueError(f"cannot handle {dataset.PatientName}")
        return reader_of()(dataset)


def test_a_failed_attempt_is_repeated_after_a_pause(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3", 1), chest_film("1.2.3", 2))
    read = failing_on(1, times=1)
    reader = bench.reader(read=read)
    reader.read_study(1)
    study = bench.study()
    assert study.state is StudyState.READY
    assert study.next_attempt_at is not None
    assert study.next_attempt_at > bench.clock.now
    assert [i.state for i in bench.inferences] == [InferenceState.STARTED, InferenceState.READ]
    reader.read_study(1)
    assert read.calls == 1, "not before its time"

    bench.clock.forward(5)
    reader.read_study(1)
    assert bench.study().state is StudyState.DELIVERING
    assert [i.attempts for i in bench.inferences] == [2, 1]


def test_a_film_that_cannot_be_read_is_set_aside_and_its_neighbours_are_delivered(
    bench: Bench,
) -> None:
    bench.receive(chest_film("1.2.3", 1), chest_film("1.2.3", 2))
    read = failing_on(1, times=99)
    reader = bench.reader(read=read)
    for _ in range(5):
        reader.read_study(1)
        bench.clock.forward(60)
    assert read.calls == 3
    assert bench.study().state is StudyState.DELIVERING
    assert [i.state for i in bench.inferences] == [InferenceState.FAILED, InferenceState.READ]
    assert bench.inferences[0].reason == "internal: ValueError", "no patient's name"


def test_a_study_of_which_nothing_can_be_read_has_failed(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    reader = bench.reader(read=failing_on(1, times=99))
    for _ in range(3):
        reader.read_study(1)
        bench.clock.forward(60)
    study = bench.study()
    assert (study.state, study.reason) == (StudyState.FAILED, "internal: ValueError")


def test_a_film_that_kills_its_worker_is_tried_three_times_and_others_go_on(
    any_bench: Bench,
) -> None:
    """The attempt stands in the database before the film is touched."""
    bench = any_bench
    bench.receive(chest_film("1.2.3", 1), chest_film("1.2.3", 2))

    class WorkerKilled(BaseException):
        pass

    def kill_on_the_first(dataset: Dataset) -> DrawnReading:
        if dataset.SOPInstanceUID.endswith(".1.1"):
            raise WorkerKilled
        return reader_of()(dataset)

    for attempt in (1, 2, 3):
        with pytest.raises(WorkerKilled):
            bench.reader(read=kill_on_the_first).read_study(1)
        assert bench.inferences[0].attempts == attempt
        assert bench.study().state is StudyState.RUNNING
        bench.clock.forward(16)
        bench.sweeper.sweep()
        assert bench.study().state is StudyState.READY
    bench.reader(read=kill_on_the_first).read_study(1)
    assert bench.study().state is StudyState.DELIVERING
    assert bench.inferences[0].reason == "its reading ended the worker 3 x"
    assert bench.inferences[1].state is InferenceState.READ


def test_a_study_that_always_kills_its_worker_before_any_film_fails_in_the_end(
    bench: Bench,
) -> None:
    bench.receive(chest_film("1.2.3"))
    for _ in range(4):
        with bench.database.writing() as session:
            assert claim(session, 1, bench.clock.now, timedelta(seconds=15)) is not None
        bench.clock.forward(16)
        bench.sweeper.sweep()
    study = bench.study()
    assert (study.state, study.reason) == (
        StudyState.FAILED,
        "reading the study ended the worker 4 x",
    )


def test_work_is_void_when_the_study_grows_meanwhile_and_is_not_done_twice(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3", 1))
    late = chest_film("1.2.3", 2)

    def grow_while_reading(dataset: Dataset) -> DrawnReading:
        bench.receive(late)
        return reader_of()(dataset)

    assert bench.reader(read=grow_while_reading).read_study(1) == []
    study = bench.study()
    assert (study.state, study.revision) == (StudyState.READY, 2)
    assert bench.results == []

    bench.reader().read_study(1)
    assert [r.revision for r in bench.results] == [2] * 6
    assert bench.study().state is StudyState.DELIVERING


def test_a_late_film_is_read_alone_and_earlier_results_are_carried_over(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3", 1))
    bench.reader().read_study(1)
    first = [(r.sop_instance_uid, r.sha256) for r in bench.results]
    bench.receive(chest_film("1.2.3", 2))
    bench.reader().read_study(1)
    assert [(r.sop_instance_uid, r.sha256) for r in bench.results[:3]] == first
    assert [r.revision for r in bench.results] == [1] * 3 + [2] * 3
    assert all(r.superseded_by_key is None for r in bench.results)
    assert len(bench.deliveries) == 4 * 2


def test_a_newer_model_supersedes_what_older_ones_found(any_bench: Bench) -> None:
    bench = any_bench
    bench.receive(chest_film("1.2.3", 1))
    bench.reader().read_study(1)
    bench.receive(chest_film("1.2.3", 2))
    bench.reader(NEWER_MODEL).read_study(1)
    old, new = bench.results[:3], bench.results[3:6]
    assert [r.superseded_by_key for r in old] == [r.result_key for r in new]
    assert {r.sop_instance_uid for r in old}.isdisjoint(
        r.sop_instance_uid for r in bench.results[3:]
    )
    assert {d.state for d in bench.deliveries[:4]} == {DeliveryState.SUPERSEDED}
    assert {d.state for d in bench.deliveries[4:]} == {DeliveryState.PENDING}
    assert len(bench.deliveries) == 4 + 4 * 2


def test_one_version_never_names_two_models(bench: Bench) -> None:
    other = ModelIdentity(MODEL.name, MODEL.version, "00" * 32)
    bench.reader()
    with (
        pytest.raises(CheckpointError, match="give the new model a new version"),
        bench.database.writing() as session,
    ):
        register_model(session, other, bench.clock.now)


def test_a_source_that_changed_on_the_disk_is_noticed(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    path = bench.store.path_of(bench.instances[0].relative_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    reader = bench.reader(most_attempts=1)
    reader.read_study(1)
    study = bench.study()
    assert study.state is StudyState.FAILED
    assert study.reason is not None
    assert "has changed" in study.reason


def test_a_source_that_changes_while_it_is_read_gets_no_result(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    path = bench.store.path_of(bench.instances[0].relative_path)

    def change_while_reading(dataset: Dataset) -> DrawnReading:
        reading = reader_of()(dataset)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        return reading

    bench.reader(read=change_while_reading, most_attempts=1).read_study(1)
    study = bench.study()
    assert (study.state, bench.results) == (StudyState.FAILED, [])
    assert study.reason is not None
    assert "has changed" in study.reason
    stored = [bench.store.path_of(name) for name in bench.store.relative_paths()]
    assert stored == [path], "nothing was left behind"


def test_a_long_study_is_handed_back_between_two_films(bench: Bench) -> None:
    bench.receive(*(chest_film("1.2.3", number) for number in (1, 2, 3)))
    reader = bench.reader(slice_seconds=0)
    for read in (1, 2):
        reader.read_study(1)
        assert bench.study().state is StudyState.READY
        assert len(bench.inferences) == read
        bench.sweeper.sweep()
    reader.read_study(1)
    assert bench.study().state is StudyState.DELIVERING
    assert bench.study().attempts == 0


def test_of_many_workers_one_gets_the_study(any_bench: Bench) -> None:
    bench = any_bench
    bench.receive(chest_film("1.2.3"))
    calls, both_started = [], threading.Barrier(4)

    def count(dataset: Dataset) -> DrawnReading:
        calls.append(dataset.SOPInstanceUID)
        return reader_of()(dataset)

    def work() -> None:
        both_started.wait()
        bench.reader(read=count).read_study(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(bench.results) == 3


def test_a_lease_lives_as_long_as_its_worker_works(database: Database, tmp_path: Path) -> None:
    bench = Bench(database, tmp_path / "store", PACS)
    bench.receive(chest_film("1.2.3"))
    renewed = threading.Event()

    def read_until_renewed(dataset: Dataset) -> DrawnReading:
        before = bench.study().lease_expires_at
        bench.clock.forward(1)
        while bench.study().lease_expires_at == before:
            threading.Event().wait(0.02)
        renewed.set()
        return reader_of()(dataset)

    bench.reader(read=read_until_renewed, lease=timedelta(seconds=0.3)).read_study(1)
    assert renewed.is_set()
    assert bench.study().state is StudyState.DELIVERING
