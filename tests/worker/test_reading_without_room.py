"""A disk without room for results delays them, and costs no film one of its attempts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.bench import PACS, Bench
from tests.worker.readings import chest_film
from tests.worker.small_disk import SmallDisk, small_disk
from worker.database import Database
from worker.settings import Settings
from worker.studies import StudyState
from worker.tables import InferenceState


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "store", 32) as mounted:
        yield mounted


def test_results_wait_for_room_however_long_the_disk_is_full(
    database: Database, tmp_path: Path, disk: SmallDisk
) -> None:
    bench = Bench(database, disk.folder, PACS)
    bench.receive(chest_film("1.2.3"), chest_film("1.2.3", 2))
    disk.fill(0)
    for _ in range(6):
        bench.reader(most_attempts=2).read_study(1)
        study = bench.study()
        assert study.state is StudyState.READY
        assert "wait for room" in (study.reason or "")
        assert study.next_attempt_at is not None
        assert study.next_attempt_at > bench.clock.now, "not at once"
        assert [film.attempts for film in bench.inferences] == [0]
        bench.clock.now = study.next_attempt_at
    assert not list(disk.folder.glob("partial/*"))

    disk.clear()
    bench.reader(most_attempts=2).read_study(1)
    assert bench.study().state is StudyState.DELIVERING
    assert {film.state for film in bench.inferences} == {InferenceState.READ}


def test_what_was_taken_is_answered_when_nothing_more_is_taken(
    database: Database, tmp_path: Path, disk: SmallDisk
) -> None:
    mark = Settings(home=tmp_path, low_water_mark_mib=24)
    bench = Bench(database, disk.folder, PACS)
    bench.receive(chest_film("1.2.3"))
    disk.fill(mark.low_water_mark_bytes - 100_000)
    bench.store.disk.low_water_mark_bytes = mark.low_water_mark_bytes
    assert not bench.store.disk.has_room()
    bench.store.disk.low_water_mark_bytes = mark.results_low_water_mark_bytes
    bench.reader().read_study(1)
    assert bench.study().state is StudyState.DELIVERING
