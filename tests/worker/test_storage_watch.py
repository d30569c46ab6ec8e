"""A storage that takes nothing is told once, and once when it takes instances again."""

from pathlib import Path

from dicom_io.storage import InstanceStore
from worker.database import Database
from worker.storage_watch import StorageWatch, storage_status
from worker.tables import Event

MORE_THAN_ANY_DISK = 1 << 60
LOW = "free disk space is below the low-water mark"


def storage_events(database: Database) -> list[tuple[str, str | None]]:
    with database.reading() as session:
        return [(event.kind, event.detail["reason"]) for event in session.query(Event)]


def test_a_change_is_told_once_also_by_a_listener_that_was_restarted(
    any_database: Database, tmp_path: Path
) -> None:
    full = InstanceStore(tmp_path / "store", low_water_mark_bytes=MORE_THAN_ANY_DISK)
    free = InstanceStore(tmp_path / "store")
    for _ in range(3):
        StorageWatch(any_database, full).look()
    assert storage_events(any_database) == [("storage refuses", LOW)]
    with any_database.reading() as session:
        assert storage_status(session, full)["problem"] == LOW
    for _ in range(3):
        StorageWatch(any_database, free).look()
    assert [kind for kind, _ in storage_events(any_database)] == [
        "storage refuses",
        "storage takes again",
    ]
    with any_database.reading() as session:
        status = storage_status(session, free)
    assert status["problem"] is None
    assert status["free_bytes"] > 0
    assert list((tmp_path / "store" / "partial").iterdir()) == []


def test_a_storage_that_is_gone_is_told_with_the_systems_reason(
    any_database: Database, tmp_path: Path
) -> None:
    store = InstanceStore(tmp_path / "store")
    (tmp_path / "store" / "partial").rmdir()
    StorageWatch(any_database, store).look()
    assert storage_events(any_database) == [
        ("storage refuses", "the store cannot be written: No such file or directory")
    ]
