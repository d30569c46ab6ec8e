"""What is finished goes when its time is over; what is not stays; a resend is new work."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_io.errors import IllegalTransition, StorageError
from dicom_io.sender import send
from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.nodes import ROOT, waited_for
from tests.worker.readings import bring, chest_film
from tests.worker.storage_scp import storage_scp
from worker.audit_chain import chain_new_entries, verify_chain
from worker.columns import Table
from worker.database import Database
from worker.removal import delete_noted_files
from worker.requeueing import requeue_study
from worker.retention import RetentionRules, held, remove_expired
from worker.settings import Settings
from worker.studies import StudyState
from worker.tables import Event, FileToRemove, Inference, Instance, Result, Series, Study

MONTH = RetentionRules(keep_for=timedelta(days=30), keep_bytes=None)


def read(bench: Bench, *study_uids: str) -> None:
    """Bring studies through to their end, without a target, a minute apart."""
    for study_uid in study_uids:
        bench.receive(chest_film(study_uid))
        (study,) = [study for study in bench.all(Study) if study.study_uid == study_uid]
        bench.reader().read_study(study.study_key)
        bench.clock.forward(60)


def files(bench: Bench) -> set[str]:
    return set(bench.store.relative_paths())


def delete_all(bench: Bench) -> int:
    return delete_noted_files(bench.database, bench.store, bench.clock(), 1000)


def test_a_study_goes_when_its_time_is_over_and_its_row_and_log_stay(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.2.3")
    entries = len(bench.all(Event))
    assert remove_expired(any_database, MONTH, bench.clock()) == 0
    now = bench.clock.forward(30 * 86400)
    assert remove_expired(any_database, MONTH, now) == 1
    assert len(bench.all(FileToRemove)) == len(files(bench)) == 3
    assert delete_all(bench) == 3

    assert files(bench) == set()
    for table in (Instance, Series, Inference, Result, FileToRemove):
        assert bench.all(table) == []
    study = bench.study()
    assert (study.study_uid, study.state) == ("1.2.3", StudyState.REMOVED)
    assert study.reason == "deleted by retention: its time was over"
    told = [event.kind for event in bench.all(Event)[entries:]]
    assert told == ["study step", "study removed", "files removed"]
    chain_new_entries(any_database)
    with any_database.reading() as session:
        assert verify_chain(session).intact


def test_the_oldest_goes_first_until_the_rest_fits(any_database: Database, tmp_path: Path) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.1", "1.2", "1.3")
    with any_database.reading() as session:
        all_of_it = held(session)
    assert all_of_it.studies == 3
    assert all_of_it.bytes_held == sum(i.size for i in bench.instances) + sum(
        r.size for r in bench.results
    )
    rules = RetentionRules(keep_for=None, keep_bytes=all_of_it.bytes_held - 1)
    assert remove_expired(any_database, rules, bench.clock()) == 1
    assert remove_expired(any_database, rules, bench.clock()) == 0
    assert [study.state.value for study in bench.all(Study)] == ["removed", "done", "done"]


def test_nothing_undelivered_failed_or_in_work_goes(any_database: Database, tmp_path: Path) -> None:
    with storage_scp() as (_, target):
        pass  # nobody answers there now
    bench = Bench(any_database, tmp_path, target)
    bench.receive(chest_film("1.1"))
    bench.reader().read_study(1)  # delivering
    bench.receive(chest_film("1.2"))  # ready
    bench.receive(chest_film("1.3"))
    bench.sender(send, give_up_after=timedelta(0)).deliver_to(bench.peers[0].peer_key)  # 1.1 failed
    bench.reader().read_study(3)  # delivering
    states = [study.state.value for study in bench.all(Study)]
    assert states == ["failed", "ready", "delivering"]
    rules = RetentionRules(keep_for=timedelta(0), keep_bytes=0)
    assert remove_expired(any_database, rules, bench.clock.forward(1e7)) == 0
    assert [study.state.value for study in bench.all(Study)] == states


def test_one_batch_is_bounded(any_database: Database, tmp_path: Path) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.1", "1.2", "1.3")
    rules = RetentionRules(timedelta(0), None, studies_at_a_time=2)
    assert [remove_expired(any_database, rules, bench.clock()) for _ in range(3)] == [2, 1, 0]


def test_a_resend_after_deletion_is_new_work_with_the_same_uids(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.2.3")
    uids = {result.sop_instance_uid for result in bench.results}
    remove_expired(any_database, MONTH, bench.clock.forward(30 * 86400))
    delete_all(bench)
    read(bench, "1.2.3")
    assert (bench.study().state, bench.study().revision) == (StudyState.DONE, 2)
    assert {result.sop_instance_uid for result in bench.results} == uids
    for row in (*bench.instances, *bench.results):
        bench.store.verify(row.relative_path, row.sha256)


def test_a_resend_before_the_files_are_gone_keeps_its_own(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.2.3")
    remove_expired(any_database, MONTH, bench.clock.forward(30 * 86400))
    bench.receive(chest_film("1.2.3"))
    delete_all(bench)
    (instance,) = bench.instances
    bench.store.verify(instance.relative_path, instance.sha256)
    assert files(bench) == {instance.relative_path}


def test_a_file_that_was_deleted_while_it_came_again_is_asked_for_again(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    one = association()
    bench.intake.association_accepted(one)
    instance = bring(chest_film("1.2.3"), bench.store, bench.intake, one)
    bench.store.remove(instance.stored.relative_path)
    with pytest.raises(StorageError, match="send it again"):
        bench.intake.instance_stored(one, instance)


def test_resends_during_deletion_never_lose_what_was_taken(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.2.3")
    taken = 0
    film, one, done = chest_film("1.2.3"), association(), threading.Event()
    bench.intake.association_accepted(one)

    def remove_again_and_again() -> None:
        while not done.is_set():
            with any_database.writing() as session:
                # As if it had been read and delivered in between.
                session.query(Study).filter(Study.state != StudyState.REMOVED).update(
                    {"state": StudyState.DONE, "finished_at": bench.clock()}
                )
            remove_expired(any_database, RetentionRules(timedelta(0), None), bench.clock())
            delete_all(bench)

    remover = threading.Thread(target=remove_again_and_again)
    remover.start()
    end = time.monotonic() + 2
    while time.monotonic() < end or not taken:
        try:
            bring(film, bench.store, bench.intake, one)
        except StorageError:
            continue  # answered 0xA700: the sender tries again
        taken += 1
    done.set()
    remover.join()
    delete_all(bench)
    bring(film, bench.store, bench.intake, one)
    for row in bench.instances:
        bench.store.verify(row.relative_path, row.sha256)
    assert len(bench.instances) == 1


def killed_while_deleting(bench: Bench, settings: Settings, study_uid: str, films: int) -> bool:
    """Receive a study, erase it, and kill the process that does; whether that left anything."""
    bench.receive(*(chest_film(study_uid, number) for number in range(1, films + 1)))
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "purge", "--yes", study_uid],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MULTIMIX_HOME": str(settings.home)},
        cwd=settings.home,
    )
    waited_for(
        lambda: len(files(bench)) < films or process.poll() is not None, "the first deletion"
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(files(bench)) < films
    return len(files(bench)) > 0


def test_what_a_killed_deletion_left_is_finished_later(settings: Settings) -> None:
    database = Database(settings.resolved_database_url)
    database.upgrade_to_head()
    bench = Bench(database, settings.store_directory)
    # On a busy machine one study may be gone before the blow falls; then the next one gets it.
    assert any(killed_while_deleting(bench, settings, f"1.2.{n}", 40 << n) for n in range(5))
    left = files(bench)
    # Nothing that is left is forgotten, and nothing but it is remembered.
    assert left <= {noted.relative_path for noted in bench.all(FileToRemove)}
    assert bench.instances == []

    delete_all(bench)
    assert files(bench) == set()
    assert bench.all(FileToRemove) == []
    assert bench.all(Event)[-1].kind == "files removed"
    database.close()


def test_a_file_that_cannot_be_deleted_stays_noted_and_delays_no_other(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.2.3")
    remove_expired(any_database, MONTH, bench.clock.forward(30 * 86400))
    (path, *_) = sorted(files(bench))
    in_the_way = bench.store.path_of(path)
    in_the_way.unlink()
    in_the_way.mkdir()  # deleting it fails for root, too
    with pytest.raises(StorageError, match="cannot delete"):
        delete_all(bench)
    assert [noted.relative_path for noted in bench.all(FileToRemove)] == [path]


def test_a_removed_study_is_not_requeued(any_database: Database, tmp_path: Path) -> None:
    bench = Bench(any_database, tmp_path)
    read(bench, "1.2.3")
    remove_expired(any_database, MONTH, bench.clock.forward(30 * 86400))
    with (
        pytest.raises(IllegalTransition, match="deleted; send it again"),
        any_database.writing() as session,
    ):
        requeue_study(session, 1, bench.clock())


def test_removal_knows_every_table_that_refers_to_a_study() -> None:
    """Whoever adds a table with a foreign key has to say in worker.removal what becomes of it."""
    referring = {
        table.name
        for table in Table.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column.table.name in ("studies", "series", "instances", "inferences", "results")
    }
    assert referring == {
        "association_studies",
        "deliveries",
        "files_to_remove",
        "inferences",
        "instance_conflicts",
        "instances",
        "results",
        "series",
    }
