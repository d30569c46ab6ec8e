"""The product as its users meet it: real sockets, the embedded broker and database, a real peer."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.uids import ResultKind, result_uid
from model import SHIPPED_MODEL
from model.checkpoint import read_card
from tests.worker.nodes import ROOT, RunningNode, running_node, waited_for
from worker.demo_pacs import StorageScpPacs

CANARY = "Canary^Bird"


def film(seed: int, **uids: str) -> Dataset:
    """A phantom whose patient must appear in no log and no message."""
    phantom = draw_phantom(seed, 384, 320)
    return phantom_dataset(phantom, patient_name=CANARY, patient_id="CANARY-ID", **uids)


@pytest.fixture
def node(tmp_path: Path, pacs: StorageScpPacs) -> Iterator[RunningNode]:
    with running_node(tmp_path / "node", pacs) as running:
        yield running


def expected_uids(dataset: Dataset) -> set[str]:
    """UIDs of the results of a film, from the film and the model alone."""
    version = read_card(SHIPPED_MODEL).version
    kinds = (ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE)
    return {str(result_uid(dataset.SOPInstanceUID, version, kind)) for kind in kinds}


def test_a_film_comes_back_as_mask_and_saliency_image_of_its_own_study(
    node: RunningNode, pacs: StorageScpPacs, tmp_path: Path
) -> None:
    chest = film(1)
    assert [outcome.status for outcome in node.send(chest)] == [0x0000]
    study = node.wait_for(chest.StudyInstanceUID, "done", "failed", "rejected")
    assert study["state"] == "done", study

    assert set(pacs.arrivals()) == expected_uids(chest)
    received = {}
    for uid in pacs.arrivals():
        pacs.fetch(uid, tmp_path / "received.dcm")
        result = dcmread(tmp_path / "received.dcm", force=True)
        received[result.SOPClassUID] = result
    mask, picture = received[SegmentationStorage], received[SecondaryCaptureImageStorage]
    for result in (mask, picture):
        assert result.StudyInstanceUID == chest.StudyInstanceUID
        assert result.SeriesInstanceUID != chest.SeriesInstanceUID
        assert result.PatientName == CANARY
        assert result.PatientID == chest.PatientID
    assert (mask.Rows, mask.Columns) == (chest.Rows, chest.Columns)
    assert [segment.SegmentNumber for segment in mask.SegmentSequence] == [1, 2]
    assert picture.PhotometricInterpretation == "RGB"

    # A PACS that forwards everything brings the picture back, which makes no work.
    assert [outcome.status for outcome in node.send(picture)] == [0x0000]
    assert "own result ignored" in node.command("audit", chest.StudyInstanceUID)
    study = node.study(chest.StudyInstanceUID)
    assert study is not None
    assert (study["state"], study["revision"], len(study["instances"])) == ("done", 1, 1)

    everything_but_storage = [
        path
        for path in node.folder.rglob("*")
        if path.is_file() and "store" not in path.parts and ".sqlite" not in path.name
    ]
    assert everything_but_storage
    for path in everything_but_storage:
        assert b"Canary" not in path.read_bytes(), path
        assert b"CANARY" not in path.read_bytes(), path


def test_what_cannot_be_read_is_rejected_with_a_reason_and_the_others_go_on(
    node: RunningNode, pacs: StorageScpPacs
) -> None:
    hip, damaged, colour, frames, chest = (film(seed) for seed in range(2, 7))
    hip.BodyPartExamined, hip.AnatomicRegionSequence = "HIP", []
    damaged.PixelData = damaged.PixelData[:1000]
    colour.SamplesPerPixel, colour.PhotometricInterpretation = 3, "RGB"
    frames.NumberOfFrames = 2
    for dataset in (hip, damaged, colour, frames, chest):
        assert [outcome.status for outcome in node.send(dataset)] == [0x0000]
    reasons = {
        "not a chest radiograph": hip,
        "cannot be decoded": damaged,
        "colour": colour,
        "multi-frame": frames,
    }
    for reason, dataset in reasons.items():
        study = node.wait_for(dataset.StudyInstanceUID, "done", "failed", "rejected")
        assert study["state"] == "rejected", study
        assert reason in study["reason"]
    assert node.wait_for(chest.StudyInstanceUID, "done", "failed")["state"] == "done"
    assert set(pacs.arrivals()) == expected_uids(chest)


def test_an_instance_that_comes_late_starts_a_revision_and_nothing_is_sent_twice(
    node: RunningNode, pacs: StorageScpPacs
) -> None:
    first = film(8)
    node.send(first)
    assert node.wait_for(first.StudyInstanceUID, "done", "failed")["state"] == "done"
    before = pacs.arrivals()
    second = film(9, study_uid=first.StudyInstanceUID, series_uid=first.SeriesInstanceUID)
    node.send(second)
    study = node.wait_for(first.StudyInstanceUID, "done", "failed", revision=2)
    assert (study["state"], study["revision"]) == ("done", 2)
    after = pacs.arrivals()
    assert set(after) == expected_uids(first) | expected_uids(second)
    assert all(after[uid].at == arrival.at for uid, arrival in before.items())


def demo_environment(folder: Path) -> dict[str, str]:
    """The demonstration's environment without Orthanc on the PATH."""
    programs = folder / "bin"
    programs.mkdir()
    return os.environ | {"PYTHONPATH": str(ROOT), "PATH": str(programs)}


def test_the_demonstration_sends_what_it_is_given_and_counts_what_came_back(
    tmp_path: Path,
) -> None:
    films = tmp_path / "films"
    (films / "deep").mkdir(parents=True)
    film(11).save_as(films / "deep" / "chest", enforce_file_format=True)
    hip = film(12)
    hip.BodyPartExamined, hip.AnatomicRegionSequence = "HIP", []
    hip.save_as(films / "hip.dcm", enforce_file_format=True)
    table = tmp_path / "table.json"
    done = subprocess.run(
        [sys.executable, "-m", "worker", "demo", "--studies", str(films), "--json", str(table)],
        cwd=tmp_path,
        env=demo_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["study"]: row for row in json.loads(table.read_text())}
    chest = rows["chest"]
    assert chest["state"] == "done"
    assert chest["lung_area_cm2"] > 0
    assert chest["seconds"] > 0
    for path in (*chest["results"], *chest["overlays"]):
        assert (tmp_path / path).stat().st_size > 1000
    assert len(chest["results"]) == 2
    assert len(chest["overlays"]) == 1
    assert rows["hip"]["state"] == "rejected"
    assert "not a chest radiograph" in rows["hip"]["verdict"]
    assert not rows["hip"]["results"]
    assert not (tmp_path / "demo-output" / "node").exists()


def test_an_interrupted_demonstration_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "demo", "--studies", str(ROOT / "tests")],
        cwd=tmp_path,
        env=demo_environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = tmp_path / "demo-output" / "node.log"
    waited_for(lambda: log.exists() and log.stat().st_size > 0, "the node's first line")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    home = str(tmp_path / "demo-output" / "node")

    def processes_of_the_node() -> list[str]:
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if home.encode() in environ.read_bytes():
                    found.append(environ.parent.name)
            except OSError:
                continue
        return found

    assert processes_of_the_node() == []
    shutil.rmtree(tmp_path / "demo-output")
