"""An object that named no study is read when it comes again and names one."""

from pathlib import Path

import pytest
from pydicom import Dataset

from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.readings import bring, chest_film
from worker.database import Database
from worker.purging import purge_study
from worker.studies import StudyState
from worker.tables import Event, InstanceConflict, Study


@pytest.fixture
def bench(any_database: Database, tmp_path: Path) -> Bench:
    return Bench(any_database, tmp_path / "store")


def nameless_film(study_uid: str | None = None) -> Dataset:
    """The first film of study 1.2.3, which says so in no way or in a malformed one."""
    film = chest_film("1.2.3")
    del film.StudyInstanceUID
    if study_uid is not None:
        film.add_new("StudyInstanceUID", "LO", study_uid)
        film["StudyInstanceUID"].VR = "UI"
    return film


def take(bench: Bench, *films: Dataset) -> list[str]:
    """Take films in one association, and give the paths of their files."""
    one = association()
    bench.intake.association_accepted(one)
    paths = [bring(film, bench.store, bench.intake, one).stored.relative_path for film in films]
    bench.intake.association_ended(one, released=True)
    bench.clock.forward(3)
    bench.sweeper.sweep()
    return paths


def study_states(bench: Bench) -> list[tuple[str | None, StudyState]]:
    return [(study.study_uid, study.state) for study in bench.all(Study)]


@pytest.mark.parametrize("named", [None, "1..2"])
def test_a_corrected_object_is_read_and_the_first_copy_is_kept_beside_it(
    bench: Bench, named: str | None
) -> None:
    (wrong,) = take(bench, nameless_film(named))
    assert study_states(bench) == [(None, StudyState.REJECTED)]
    (right,) = take(bench, chest_film("1.2.3"))
    assert study_states(bench) == [(None, StudyState.REMOVED), ("1.2.3", StudyState.READY)]
    assert bench.waker.readers == [2]
    bench.reader().read_study(2)
    assert bench.study(2).state is StudyState.DONE
    assert len(bench.results) == 2
    (instance,) = bench.instances
    assert (instance.study_key, instance.relative_path) == (2, right)
    assert (instance.rejection, instance.rejection_detail) == (None, None)
    assert [conflict.relative_path for conflict in bench.all(InstanceConflict)] == [wrong]


def test_erasing_the_study_erases_both_copies(bench: Bench) -> None:
    take(bench, nameless_film())
    take(bench, chest_film("1.2.3"))
    assert purge_study(bench.database, bench.store, "1.2.3", "miller", bench.clock) == 2
    assert list(bench.store.relative_paths()) == []


def test_the_log_says_which_copy_took_the_place_of_which(bench: Bench) -> None:
    take(bench, nameless_film())
    (wrong,) = bench.instances
    take(bench, chest_film("1.2.3"))
    (right,) = bench.instances
    stored = [event for event in bench.all(Event) if event.kind == "instance stored"]
    assert [event.study_key for event in stored] == [1, 2]
    assert stored[1].detail["sha256"] == right.sha256
    assert stored[1].detail["instead_of_sha256"] == wrong.sha256


def test_a_corrected_object_joins_the_study_that_it_names(bench: Bench) -> None:
    take(bench, nameless_film(), chest_film("1.2.3", 2))
    bench.reader().read_study(2)
    assert bench.study(2).state is StudyState.DONE
    take(bench, chest_film("1.2.3"))
    study = bench.study(2)
    assert (study.state, study.revision) == (StudyState.READY, 2)
    assert {instance.study_key for instance in bench.instances} == {2}


def test_further_copies_make_no_work_whether_they_name_the_study_or_not(bench: Bench) -> None:
    take(bench, nameless_film())
    (right,) = take(bench, chest_film("1.2.3"))
    bench.reader().read_study(2)
    take(bench, nameless_film(), chest_film("1.2.3"), chest_film("1.2.3", StudyDate="20200101"))
    assert study_states(bench) == [(None, StudyState.REMOVED), ("1.2.3", StudyState.DONE)]
    assert [instance.relative_path for instance in bench.instances] == [right]
    assert len(bench.all(InstanceConflict)) == 2


def test_a_copy_that_stood_as_conflict_is_read_when_it_is_sent_again(bench: Bench) -> None:
    (wrong,) = take(bench, nameless_film())
    right = bench.store.keep_dataset(chest_film("1.2.3"))
    with bench.database.writing() as session:
        session.add(
            InstanceConflict(
                instance_key=bench.instances[0].instance_key,
                relative_path=right.relative_path,
                sha256=right.sha256,
                size=right.size,
                received_at=bench.clock.now,
            )
        )
    take(bench, chest_film("1.2.3"))
    assert bench.study(2).state is StudyState.READY
    assert [conflict.relative_path for conflict in bench.all(InstanceConflict)] == [wrong]
