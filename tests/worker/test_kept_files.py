"""What a reading keeps is named by a row in the end, or not there; what is named stays."""

import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy.exc import IntegrityError

from dicom_io.errors import StorageError
from dicom_io.sender import send
from tests.worker.arrivals import Clock
from tests.worker.bench import PACS, Bench
from tests.worker.readings import DrawnReading, chest_film, reader_of
from tests.worker.small_disk import small_disk
from tests.worker.storage_scp import storage_scp
from worker.database import Database
from worker.purging import purge_study
from worker.stray_copies import names_study
from worker.studies import StudyState


@pytest.fixture
def bench(any_database: Database, tmp_path: Path) -> Bench:
    return Bench(any_database, tmp_path / "store", PACS)


def named(bench: Bench) -> set[str]:
    return {row.relative_path for row in (*bench.instances, *bench.results)}


def files(bench: Bench) -> set[str]:
    return set(bench.store.relative_paths())


def test_a_reading_that_the_study_outgrew_leaves_no_file(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))

    def grow_while_reading(dataset: Dataset) -> DrawnReading:
        bench.receive(chest_film("1.2.3", 2))
        return reader_of()(dataset)

    bench.reader(read=grow_while_reading).read_study(1)
    assert files(bench) == named(bench)
    assert len(files(bench)) == 2
    bench.clock.forward(2)
    bench.reader().read_study(1)
    assert files(bench) == named(bench)
    assert len(files(bench)) == 2 + 2 * 3


def test_a_study_that_grew_while_it_was_read_is_erased_without_a_rest(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (_, target):
        bench = Bench(any_database, tmp_path / "home" / "store", target)
        bench.receive(chest_film("1.2.3"))

        def grow_while_reading(dataset: Dataset) -> DrawnReading:
            bench.receive(chest_film("1.2.3", 2))
            return reader_of()(dataset)

        bench.reader(read=grow_while_reading).read_study(1)
        bench.clock.forward(2)
        bench.reader().read_study(1)
        for _ in range(2):
            bench.sender(send).deliver_to(1)
    assert bench.study().state is StudyState.DONE
    purge_study(any_database, bench.store, "1.2.3", "miller", bench.clock)
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [path for path in left if names_study(path.read_bytes(), "1.2.3")]


def test_results_that_the_database_refuses_leave_no_file(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path / "store", PACS)
    bench.receive(chest_film("1.2.3"))
    with sqlite3.connect(bench.database.engine.url.database or "") as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON results "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    with pytest.raises(IntegrityError):
        bench.reader().read_study(1)
    assert files(bench) == named(bench) == {bench.instances[0].relative_path}


def test_results_for_which_there_is_no_room_leave_no_part_of_them(
    database: Database, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "store", 32) as disk:
        bench = Bench(database, disk.folder, PACS)
        bench.receive(chest_film("1.2.3"))
        room_for_one = 28 * 1024
        disk.fill(room_for_one)
        for _ in range(3):
            bench.reader().read_study(1)
            bench.clock.forward(3600)
        assert "wait for room" in (bench.study().reason or "")
        assert files(bench) == named(bench)
        disk.clear()
        bench.reader().read_study(1)
        assert bench.study().state is StudyState.DELIVERING


def test_what_another_worker_has_entered_stays(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))

    def be_overtaken(dataset: Dataset) -> DrawnReading:
        bench.clock.forward(16)
        bench.sweeper.sweep()
        bench.reader().read_study(1)
        return reader_of()(dataset)

    # Both make the same bytes, for the clock stands meanwhile.
    bench.reader(read=be_overtaken).read_study(1)
    assert len(bench.results) == 3
    assert files(bench) == named(bench)
    for result in bench.results:
        bench.store.verify(result.relative_path, result.sha256)


class ClockWithAlarm(Clock):
    """A clock that does something as soon as somebody looks at it and a condition holds."""

    due: Callable[[], bool] = staticmethod(lambda: False)
    alarm: Callable[[], None] = staticmethod(lambda: None)

    def __call__(self) -> datetime:
        if self.due():
            self.due = lambda: False
            self.alarm()
        return super().__call__()


def test_results_that_were_deleted_before_they_were_entered_are_made_again(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))

    def delete_results() -> None:
        for path in files(bench) - named(bench):
            bench.store.remove(path)

    bench.clock = ClockWithAlarm()
    reader = bench.reader()
    bench.clock.due = lambda: len(files(bench)) == 4  # all kept, none entered
    bench.clock.alarm = delete_results
    with pytest.raises(StorageError, match="made again"):
        reader.read_study(1)
    assert bench.results == []
    bench.clock.forward(60)
    reader.read_study(1)
    assert len(bench.results) == 3
    assert files(bench) == named(bench)
