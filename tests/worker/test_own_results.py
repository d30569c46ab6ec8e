"""What this node made and gets back, by a PACS that forwards everything, makes no work."""

from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_io.sender import send
from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.readings import bring, chest_film
from tests.worker.storage_scp import StorageScp, storage_scp
from worker.database import Database
from worker.purging import purge_study
from worker.studies import StudyState
from worker.tables import Event


def forward(bench: Bench, results: list[Dataset]) -> None:
    """Bring results to the node as it was given a film."""
    one = association("PACS")
    bench.intake.association_accepted(one)
    for result in results:
        bring(result, bench.store, bench.intake, one)
    bench.intake.association_ended(one, released=True)
    bench.clock.forward(3)
    bench.sweeper.sweep()


def delivered_study(bench: Bench) -> list[Dataset]:
    """A study that has been read and sent; the results."""
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    bench.sender(send).deliver_to(1)
    return [bench.store.read(result.relative_path) for result in bench.results]


@pytest.fixture
def scp_and_bench(any_database: Database, tmp_path: Path):
    with storage_scp() as (scp, target):
        yield scp, Bench(any_database, tmp_path / "store", target)


def test_results_that_come_back_are_ignored(scp_and_bench: tuple[StorageScp, Bench]) -> None:
    scp, bench = scp_and_bench
    results = delivered_study(bench)
    woken = list(bench.waker.readers)
    forward(bench, results)
    study = bench.study()
    assert (study.state, study.revision) == (StudyState.DONE, 1)
    assert len(bench.instances) == 1
    ignored = [event for event in bench.all(Event) if event.kind == "own result ignored"]
    assert [event.study_key for event in ignored] == [1] * len(results)
    assert len(results) == 3
    assert bench.waker.readers == woken
    assert len(scp.received) == 2


def test_results_that_come_back_with_other_bytes_leave_no_file_and_no_result_is_lost(
    scp_and_bench: tuple[StorageScp, Bench],
) -> None:
    _, bench = scp_and_bench
    results = delivered_study(bench)
    held = set(bench.store.relative_paths())
    forward(bench, results)
    for result in results:
        result.PatientName = "Coerced^Name"
    forward(bench, results)
    assert set(bench.store.relative_paths()) == held
    for row in bench.results:
        bench.store.verify(row.relative_path, row.sha256)
    purge_study(bench.database, bench.store, "1.2.3", "operator", bench.clock)
    assert list(bench.store.relative_paths()) == []


def test_results_of_a_study_that_was_deleted_meanwhile_are_rejected_and_end_there(
    scp_and_bench: tuple[StorageScp, Bench],
) -> None:
    scp, bench = scp_and_bench
    results = delivered_study(bench)
    purge_study(bench.database, bench.store, "1.2.3", "operator", bench.clock)
    forward(bench, results)
    bench.reader().read_study(1)
    study = bench.study()
    assert study.state is StudyState.REJECTED
    assert study.reason == "the object is a result of this node"
    assert bench.results == []
    assert len(scp.received) == 2
