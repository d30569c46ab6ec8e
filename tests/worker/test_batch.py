"""A folder is read without any server; a bad file is a row, and a second start goes on."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

from dicom_io.phantom import draw_phantom, phantom_dataset
from tests.worker.nodes import ROOT
from worker.batch import COLUMNS


def run_batch(
    source: Path, out: Path, *options: str, status: int = 0, **settings: str
) -> list[dict[str, str]]:
    """Run the command as a user does, look at its exit status, and read its table."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", "batch", str(source), str(out), *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | settings,
    )
    assert done.returncode == status, done.stderr
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    return rows


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """One good film in a subfolder, one hip, one damaged file, one text."""
    folder = tmp_path / "films"
    (folder / "deep" / "er").mkdir(parents=True)
    chest = phantom_dataset(draw_phantom(1, 384, 320))
    chest.save_as(folder / "deep" / "er" / "chest", enforce_file_format=True)
    hip = phantom_dataset(draw_phantom(2, 128, 128), patient_name="Canary^Name")
    hip.BodyPartExamined, hip.AnatomicRegionSequence = "HIP", []
    hip.save_as(folder / "hip.dcm", enforce_file_format=True)
    damaged = (folder / "deep" / "er" / "chest").read_bytes()[:-5000]
    (folder / "damaged.dcm").write_bytes(damaged)
    (folder / "notes.txt").write_text("no DICOM")
    return folder


def test_every_file_becomes_a_row_with_its_result_or_its_reason(
    films: Path, tmp_path: Path
) -> None:
    rows = {
        row["source"]: row for row in run_batch(films, tmp_path / "out", "--results", "seg,sc,sr")
    }
    assert set(rows) == {"deep/er/chest", "hip.dcm", "damaged.dcm", "notes.txt"}
    chest = rows["deep/er/chest"]
    assert chest["status"] == "done"
    assert chest["verdict"] in ("normal", "pneumonia")
    assert 0 <= float(chest["probability"]) <= 1
    assert 15 < float(chest["lung_area_percent"]) < 60
    seg, sc = dcmread(tmp_path / "out" / chest["seg"]), dcmread(tmp_path / "out" / chest["sc"])
    assert seg.SOPClassUID == SegmentationStorage
    assert (seg.Rows, seg.Columns) == (384, 320)
    assert sc.SOPClassUID == SecondaryCaptureImageStorage
    assert seg.StudyInstanceUID == sc.StudyInstanceUID
    assert dcmread(tmp_path / "out" / chest["sr"]).SOPClassUID == ComprehensiveSRStorage
    assert (chest["gsps"], chest["labelmap"]) == ("", "")
    assert float(chest["lung_area_cm2"]) > 0
    assert (chest["probability"] >= chest["operating_point"]) == (chest["verdict"] == "pneumonia")
    assert chest["model"].startswith("MultiMix ")
    assert rows["hip.dcm"]["status"] == "rejected"
    assert "not a chest radiograph" in rows["hip.dcm"]["reason"]
    assert "cannot be decoded" in rows["damaged.dcm"]["reason"]
    assert "not a readable DICOM object" in rows["notes.txt"]["reason"]
    assert "Canary" not in (tmp_path / "out" / "results.csv").read_text()


def test_a_second_start_reads_only_what_is_new(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.rmtree(films / "deep")
    assert len(run_batch(films, out)) == 3
    table = out / "results.csv"
    # As an earlier version wrote it, after a power loss in the middle of a row.
    with table.open(newline="") as file:
        earlier = [row[:9] for row in csv.reader(file)]
    table.write_text("".join(",".join(row) + "\n" for row in earlier) + "unfinished,1.2")
    chest = phantom_dataset(draw_phantom(3, 256, 256))
    chest.save_as(films / "new.dcm", enforce_file_format=True)
    rows = run_batch(films, out)
    assert [row["source"] for row in rows[:3]] == ["damaged.dcm", "hip.dcm", "notes.txt"]
    assert [(row["source"], row["status"]) for row in rows[3:]] == [("new.dcm", "done")]


HASTE = {"MULTIMIX_DECODE_TIME_LIMIT_SECONDS": "0.000001"}


def test_what_failed_for_want_of_time_is_told_and_read_by_the_next_start(
    films: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    hasty = run_batch(films, out, status=1, **HASTE)
    assert {row["status"] for row in hasty} == {"failed"}
    patient = run_batch(films, out, status=0)
    assert {row["source"]: row["status"] for row in patient} == {
        "deep/er/chest": "done",
        "hip.dcm": "rejected",
        "damaged.dcm": "rejected",
        "notes.txt": "rejected",
    }
    assert len(patient) == 4
    assert run_batch(films, out, status=0, **HASTE) == patient, "what is settled is left alone"


def test_a_failure_of_a_file_that_is_there_no_more_stays_in_the_table(
    films: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_batch(films, out, status=1, **HASTE)
    (films / "notes.txt").unlink()
    shutil.rmtree(films / "deep")
    rows = run_batch(films, out, status=1)
    assert {row["source"]: row["status"] for row in rows} == {
        "deep/er/chest": "failed",
        "notes.txt": "failed",
        "damaged.dcm": "rejected",
        "hip.dcm": "rejected",
    }


def test_an_unknown_kind_of_result_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "batch", str(tmp_path), "out", "--results", "seg,pdf"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert "one or more of seg, labelmap, sc, gsps, sr; got pdf" in done.stderr
    assert not (tmp_path / "out").exists()
