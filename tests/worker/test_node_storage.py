"""A node whose storage is full or read-only: refused for the time being, visible, and no loss."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import select

from dicom_io.errors import AssociationFailed
from dicom_io.phantom import draw_phantom, phantom_dataset
from tests.worker.nodes import RunningNode, running_node, waited_for
from tests.worker.small_disk import SmallDisk, small_disk
from worker.database import Database
from worker.demo_pacs import StorageScpPacs
from worker.tables import Event

MIB = 1 << 20
MARK_MIB = 2
OUT_OF_RESOURCES = 0xA700


def film(seed: int) -> Dataset:
    return phantom_dataset(draw_phantom(seed, 256, 256))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "node" / "home" / "store", 16) as mounted:
        yield mounted


@pytest.fixture
def node(tmp_path: Path, disk: SmallDisk, pacs: StorageScpPacs) -> Iterator[RunningNode]:
    with running_node(tmp_path / "node", pacs, low_water_mark_mib=str(MARK_MIB)) as running:
        yield running


def storage_events(home: Path) -> list[tuple[str, str | None]]:
    database = Database(f"sqlite:///{home}/node.sqlite")
    try:
        with database.reading() as session:
            events = session.scalars(select(Event).order_by(Event.event_key)).all()
            return [
                (event.kind, event.detail["reason"])
                for event in events
                if event.kind.startswith("storage")
            ]
    finally:
        database.close()


def test_a_full_or_read_only_storage_refuses_for_the_time_being_and_is_told_once(
    node: RunningNode, disk: SmallDisk, tmp_path: Path
) -> None:
    home = tmp_path / "node" / "home"
    chest = film(1)

    disk.fill(MARK_MIB * MIB + 50_000)  # above the mark, but not with this film
    assert [outcome.status for outcome in node.send(chest)] == [OUT_OF_RESOURCES]
    assert not list(disk.folder.glob("partial/*"))
    assert not list(disk.folder.rglob("*.dcm"))
    disk.clear()

    disk.fill(MARK_MIB * MIB - 50_000)
    for _ in range(5):
        with pytest.raises(AssociationFailed, match="local limit exceeded") as refused:
            node.send(chest)
        assert refused.value.transient
    low = ("storage refuses", "free disk space is below the low-water mark")
    waited_for(lambda: storage_events(home) == [low], "one event of the low-water mark")
    assert "no instance is taken: free disk space is below" in node.command("status")
    disk.clear()
    waited_for(lambda: len(storage_events(home)) == 2, "the storage to be well again")
    assert "no instance is taken" not in node.command("status")

    disk.make_read_only(True)
    assert [outcome.status for outcome in node.send(chest)] == [OUT_OF_RESOURCES]
    waited_for(lambda: len(storage_events(home)) == 3, "the event of the read-only storage")
    assert "Read-only file system" in node.command("status")
    disk.make_read_only(False)

    assert [outcome.status for outcome in node.send(chest)] == [0x0000]
    study = node.wait_for(chest.StudyInstanceUID, "done", "failed")
    assert study["state"] == "done", study
    assert [kind for kind, _ in storage_events(home)][:3] == [
        "storage refuses",
        "storage takes again",
        "storage refuses",
    ]
