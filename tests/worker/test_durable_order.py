"""Power may fail at any moment: success is answered last, after file, name and row are durable."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import event

from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.storage import InstanceStore
from dicom_io.storage_service import StorageService
from tests.dicom_io.peers import association_with, encoded, radiograph, store_bytes
from worker.database import Database
from worker.intake import DatabaseIntake


@pytest.fixture
def order(any_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to make an instance durable, in the order in which it happens."""
    happened: list[str] = []
    sync, rename, answer = os.fsync, os.rename, StorageService.answer

    def noted_sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        sync(descriptor)
        if name.is_relative_to(tmp_path / "store"):
            happened.append("folder synced" if name.is_dir() else "data synced")

    def noted_rename(source: Path, target: Path) -> None:
        rename(source, target)
        happened.append("renamed")

    def noted_answer(*arguments: object) -> Dataset:
        status = answer(*arguments)  # type: ignore[arg-type]
        happened.append(f"answered 0x{status.Status:04X}")
        return status

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "rename", noted_rename)
    monkeypatch.setattr(StorageService, "answer", noted_answer)
    event.listen(any_database.engine, "commit", lambda _: happened.append("committed"))
    return happened


def test_data_then_name_then_row_and_only_then_success(
    any_database: Database, tmp_path: Path, order: list[str]
) -> None:
    store = InstanceStore(tmp_path / "store")
    intake = DatabaseIntake(any_database, "listener", timedelta(), timedelta(seconds=60))
    listener = Listener(ListenerConfiguration("MULTIMIX"), store, intake)
    with listener, association_with(listener) as association:
        order.clear()
        assert store_bytes(association, encoded(radiograph())) == 0x0000
        first = list(order)
        order.clear()
        assert store_bytes(association, encoded(radiograph())) == 0x0000
        again = list(order)
    new_folders = 2
    assert first == [
        *["folder synced"] * new_folders,
        "data synced",
        "renamed",
        "folder synced",
        "committed",
        "answered 0x0000",
    ]
    assert again == ["folder synced", "committed", "answered 0x0000"], "the same bytes again"
