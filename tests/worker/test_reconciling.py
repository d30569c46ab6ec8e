import os
import shutil
import threading
import time
import tracemalloc
from contextlib import contextmanager
from datetime import timedelta

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from sqlalchemy import select

from dicom_io.part10 import dataset_offset
from dicom_io.storage import InstanceStore
from dicom_io.uids import MANUFACTURER_MODEL_NAME
from tests.dicom_io.peers import DX, encoded, radiograph
from tests.dicom_io.test_decoding import deflated_bomb
from tests.worker.nodes import waited_for
from worker.intake import DatabaseIntake
from worker.reconciling import Reconciler, reconcile_quietly
from worker.studies import StudyState
from worker.tables import Event, Instance, Study

OLD = 3600


@pytest.fixture
def store(tmp_path):
    return InstanceStore(tmp_path / "store")


def keep(store, film, age_seconds=OLD):
    stored = store.keep(
        encoded(film),
        transfer_syntax_uid=film.file_meta.TransferSyntaxUID,
        sop_class_uid=film.SOPClassUID,
        sop_instance_uid=film.SOPInstanceUID,
    )
    path = store.path_of(stored.relative_path)
    written = path.stat().st_mtime - age_seconds
    os.utime(path, (written, written))
    return stored


def reconciler(database, store, **options):
    intake = DatabaseIntake(database, "listener", timedelta(), timedelta(seconds=60))
    return Reconciler(database, store, intake, **options)


def rows_of(database, column):
    with database.reading() as session:
        return list(session.scalars(select(column)))


def test_an_instance_without_a_row_is_entered_and_its_study_becomes_ready(database, store):
    film = radiograph()
    keep(store, film)
    found = reconciler(database, store).reconcile()
    assert len(found.entered) == found.files == 1
    assert rows_of(database, Instance.sop_instance_uid) == [film.SOPInstanceUID]
    with database.reading() as session:
        study = session.scalars(select(Study)).one()
    assert study.state is StudyState.RECEIVED
    assert study.ready_at <= study.last_change_at + timedelta(seconds=1)
    again = reconciler(database, store).reconcile()
    assert again.is_clean
    assert again.files == 1


def test_a_file_that_was_written_just_now_is_left_to_whoever_writes_it(database, store):
    keep(store, radiograph(), age_seconds=0)
    found = reconciler(database, store).reconcile()
    assert found.is_clean
    assert rows_of(database, Instance.sop_instance_uid) == []


def test_what_a_listener_that_just_died_left_is_entered_as_soon_as_it_is_old_enough(
    database, store
):
    film = radiograph()
    keep(store, film, age_seconds=0)
    reconciler_at_start = reconciler(database, store, settled_after_seconds=1.0)
    assert reconciler_at_start.reconcile().is_clean
    with reconciling_quietly(reconciler_at_start):
        waited_for(lambda: rows_of(database, Instance.sop_instance_uid), "the film's row")
    assert rows_of(database, Instance.sop_instance_uid) == [film.SOPInstanceUID]


@contextmanager
def reconciling_quietly(quiet_reconciler, **options):
    stop = threading.Event()
    thread = threading.Thread(
        target=reconcile_quietly, args=(quiet_reconciler, stop), kwargs=options
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def result_of_ours(number=1):
    result = radiograph(number)
    result.ManufacturerModelName = MANUFACTURER_MODEL_NAME
    return result


def test_what_a_killed_worker_leaves_goes_while_the_listener_runs_on(database, store):
    quiet_reconciler = reconciler(database, store, settled_after_seconds=0.5)
    film = radiograph(2)
    keep(store, film)
    with reconciling_quietly(quiet_reconciler, every_seconds=0.1):
        # The comparisons at the start are over by the time that this one is missing.
        waited_for(lambda: rows_of(database, Instance.sop_instance_uid), "the first comparison")
        for number in range(3, 6):
            left = keep(store, result_of_ours(number), age_seconds=0)
            path = store.path_of(left.relative_path)
            waited_for(lambda path=path: not path.exists(), "the deletion")
    assert rows_of(database, Instance.sop_instance_uid) == [film.SOPInstanceUID]


def test_a_later_look_settles_what_was_written_since_and_leaves_the_rest(database, store):
    looking = reconciler(database, store, settled_after_seconds=60)
    named = keep(store, radiograph(1))
    looking.reconcile()
    store.path_of(named.relative_path).unlink()
    in_time = keep(store, result_of_ours(2), age_seconds=600)
    too_young = keep(store, result_of_ours(3), age_seconds=0)
    earlier = keep(store, result_of_ours(4), age_seconds=OLD)
    found = looking.settle_lately_written(time.time() - 1200)
    assert found.results_deleted == [in_time.relative_path]
    assert found.missing == [], "what is missing is told by whole comparisons alone"
    assert set(store.relative_paths()) == {too_young.relative_path, earlier.relative_path}


def test_a_later_look_lists_only_folders_that_have_changed(store):
    kept = [keep(store, radiograph(number), age_seconds=0) for number in range(8)]
    for number, stored in enumerate(kept):
        folder = store.path_of(stored.relative_path).parent
        if number % 2:
            os.utime(folder, (1, 1))
    lately = [
        path
        for digits in {stored.sha256[:2] for stored in kept}
        for path in store.lately_kept_paths(digits, time.time() - 60)
    ]
    assert sorted(lately) == sorted(stored.relative_path for stored in kept[::2])


def test_a_later_look_deletes_nothing_that_a_row_names(database, store):
    films = [radiograph(number) for number in range(1, 4)]
    for film in films:
        keep(store, film, age_seconds=600)
    looking = reconciler(database, store, settled_after_seconds=60)
    assert len(looking.settle_lately_written(0).entered) == 3
    assert looking.settle_lately_written(0).is_clean
    assert len(list(store.relative_paths())) == 3


def test_an_orphan_that_inflates_beyond_reason_is_entered_without_being_inflated(
    database, store, tmp_path
):
    content = deflated_bomb(tmp_path / "bomb.dcm", gigabytes=1).read_bytes()
    stored = store.keep(
        content[dataset_offset(content) :],
        transfer_syntax_uid=DeflatedExplicitVRLittleEndian,
        sop_class_uid=DX,
        sop_instance_uid="1.2.3",
    )
    tracemalloc.start()
    found = reconciler(database, store, settled_after_seconds=0).reconcile()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.entered == [stored.relative_path]
    assert rows_of(database, Study.state) == [StudyState.REJECTED]
    assert peak_bytes < 100e6


def test_a_result_without_a_row_is_deleted(database, store):
    film = radiograph()
    film.ManufacturerModelName = MANUFACTURER_MODEL_NAME
    stored = keep(store, film)
    found = reconciler(database, store).reconcile()
    assert found.results_deleted == [stored.relative_path]
    assert not store.path_of(stored.relative_path).exists()
    assert rows_of(database, Study.study_key) == []


def test_what_is_no_dicom_object_stays_and_is_told(database, store):
    stored = keep(store, radiograph())
    path = store.path_of(stored.relative_path)
    path.write_bytes(b"\0" * 200)
    os.utime(path, (1, 1))
    found = reconciler(database, store).reconcile()
    assert found.unreadable == [stored.relative_path]
    assert path.exists()


@pytest.mark.parametrize(
    ("damage", "list_name"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "changed"),
        (lambda path: path.write_bytes(b""), "changed"),
    ],
)
def test_a_row_without_its_file_is_told_in_the_log(database, store, damage, list_name):
    stored = keep(store, radiograph())
    reconciler(database, store).reconcile()
    damage(store.path_of(stored.relative_path))
    found = reconciler(database, store).reconcile()
    assert getattr(found, list_name) == [stored.relative_path]
    with database.reading() as session:
        event = session.scalars(select(Event).where(Event.kind == "file damaged")).one()
    assert event.detail["path"] == stored.relative_path
    assert event.study_key is not None


def test_looking_alone_changes_nothing(database, store):
    stored = keep(store, radiograph())
    found = reconciler(database, store, repair=False).reconcile()
    assert found.entered == [stored.relative_path]
    assert rows_of(database, Study.study_key) == []


def test_of_many_instances_only_those_without_a_row_are_entered(database, store):
    intake = DatabaseIntake(database, "listener", timedelta(), timedelta(seconds=60))
    films = [radiograph(number, study=number % 3) for number in range(40)]
    for film in films[:30]:
        keep(store, film)
    Reconciler(database, store, intake).reconcile()
    late = [keep(store, film).relative_path for film in films[30:]]
    found = Reconciler(database, store, intake).reconcile()
    assert sorted(found.entered) == sorted(late)
    assert found.files == len(films)


def test_it_stops_when_it_is_told_to(database, store):
    for number in range(20):
        keep(store, radiograph(number))
    assert reconciler(database, store).reconcile(should_stop=lambda: True).files == 0


def test_a_store_that_was_restored_without_its_database_is_read_again(database, store, tmp_path):
    film = radiograph()
    stored = keep(store, film)
    copied = InstanceStore(tmp_path / "restored")
    shutil.copytree(store.root, copied.root, dirs_exist_ok=True)
    found = reconciler(database, copied).reconcile()
    assert found.entered == [stored.relative_path]
    assert rows_of(database, Study.study_uid) == [film.StudyInstanceUID]
