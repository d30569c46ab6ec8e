"""A backup as the guide says: the database first, then the store; nothing of it is lost."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from pydicom import Dataset

from dicom_io.phantom import draw_phantom, phantom_dataset
from tests.worker.nodes import RunningNode, running_node, waited_for
from worker.demo_pacs import StorageScpPacs


def film(seed: int) -> Dataset:
    return phantom_dataset(draw_phantom(seed, 128, 128))


def back_up(home: Path, backup: Path) -> None:
    """What docs/maintenance.md tells the operator to do, while the node works."""
    backup.mkdir()
    with (
        closing(sqlite3.connect(home / "node.sqlite")) as source,
        closing(sqlite3.connect(backup / "node.sqlite")) as copy,
    ):
        source.backup(copy)


def states(node: RunningNode) -> dict[str, str]:
    return {study["study_uid"]: study["state"] for study in node.status()}


def test_a_node_goes_on_from_a_backup_and_knows_what_came_after_its_database_was_copied(
    pacs: StorageScpPacs, tmp_path: Path
) -> None:
    known, later = [film(1), film(2)], film(3)
    backup = tmp_path / "backup"
    with running_node(tmp_path / "first", pacs) as node:
        home = Path(node.environment["MULTIMIX_HOME"])
        for dataset in known:
            node.send(dataset)
        for dataset in known:
            node.wait_for(str(dataset.StudyInstanceUID), "done")
        back_up(home, backup)
        node.send(later)  # between the copy of the database and that of the store
        shutil.copytree(home / "store", backup / "store")
    shutil.rmtree(home)

    restored = tmp_path / "second" / "home"
    shutil.copytree(backup, restored)
    restored.chmod(0o700)
    with running_node(tmp_path / "second", pacs) as node:
        assert {states(node)[str(dataset.StudyInstanceUID)] for dataset in known} == {"done"}
        node.command("reconcile", "--settled-after-seconds", "0")
        node.wait_for(str(later.StudyInstanceUID), "done")
        waited_for(lambda: len(pacs.arrivals()) >= 2 * 3, "the results of all studies")
        assert node.command("audit", "--verify")
