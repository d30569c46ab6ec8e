"""An image folder becomes an archive export, and the export reads back as what it was made from."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_io.archive import index_export, read_lung_mask
from dicom_io.phantom import draw_phantom
from dicom_io.pixels import decode
from tests.dicom_io.picture_folders import create, picture_folder
from tests.programs import output_of

REAL_FILMS = Path(__file__).parents[3] / "shared" / "data"


def archive(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "dicom_io.archive", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def export(tmp_path: Path) -> Path:
    create(picture_folder(tmp_path / "pictures"), tmp_path / "export")
    return tmp_path / "export"


def test_what_was_written_is_read_back(export: Path) -> None:
    index = index_export(export)
    assert index.is_sound
    assert index.masks == 2
    a, b, c = sorted(index.images, key=lambda image: image.patient)
    assert (a.label, a.split, a.view, a.sex, a.age_years) == ("normal", "train", "PA", "M", 52.0)
    assert (b.label, b.split, b.view, b.age_years) == ("pneumonia", "test", "AP Supine", None)
    assert (c.label, c.view, c.sex, c.source) == (None, "", "", "Clinic B")
    assert (a.rows, a.columns, a.photometric) == (120, 96, "MONOCHROME2")
    assert len({image.study_uid for image in index.images}) == 3


def test_pixels_and_mask_come_back_exactly(export: Path) -> None:
    first = min(index_export(export).images, key=lambda image: image.patient)
    phantom = draw_phantom(0, 120, 96)
    np.testing.assert_array_equal(dcmread(first.path).pixel_array, phantom.stored_hw // 16)
    np.testing.assert_array_equal(read_lung_mask(first.mask_paths, first), phantom.lungs_hw)


def test_no_pixel_size_is_claimed_where_none_is_known(export: Path) -> None:
    assert [image.pixel_spacing_mm for image in index_export(export).images] == [None] * 3


def test_tables_have_the_agreed_columns(export: Path) -> None:
    with (export / "labels.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["SOPInstanceUID", "label", "split"]
    with (export / "attribution.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["image"], line["source"], line["licence"]) for line in lines] == [
        ("a", "Clinic A", "CC0"),
        ("b", "Clinic A", "CC0"),
        ("c", "Clinic B", "CC0"),
    ]


def test_check_counts_a_sound_export_and_ends_with_status_0(export: Path) -> None:
    done = archive("check", export, "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["labels"] == {"normal": 1, "pneumonia": 1, "none": 1}
    assert report["labels_by_split"]["test"] == {"pneumonia": 1}
    assert (report["images"], report["masks"], report["studies"], report["patients"]) == (
        3,
        2,
        3,
        3,
    )


def test_check_names_what_is_wrong_and_ends_with_status_1(export: Path) -> None:
    mask = next(export.rglob("lungs.dcm"))
    image_uid = str(dcmread(mask.parent / "image.dcm").SOPInstanceUID)
    (mask.parent / "image.dcm").unlink()
    (export / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    done = archive("check", export)
    assert done.returncode == 1
    for name in (str(mask), "broken.dcm", image_uid):
        assert name in done.stdout


def test_the_command_line_creates_a_split_and_says_what_it_left_out(tmp_path: Path) -> None:
    pictures = picture_folder(tmp_path / "pictures")
    (pictures / "images" / "c.png").write_bytes(b"no picture")
    arguments = ("create", pictures / "manifest.csv", tmp_path / "out", "--split", "train")
    done = archive(*arguments, "--jobs", "2")
    assert done.returncode == 0
    assert "1 images and 1 masks" in done.stdout
    assert "c.png" in done.stdout
    assert len(index_export(tmp_path / "out").images) == 1
    assert archive(*arguments, "--strict").returncode == 1


def test_creating_nothing_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    done = archive("create", tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert "manifest.csv" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.interop
def test_dciodvfy_finds_no_error_in_image_and_mask(export: Path) -> None:
    paths = sorted(export.rglob("*.dcm"))
    assert len(paths) == 5
    for path in paths:
        assert "Error" not in output_of("dciodvfy", path)


@pytest.mark.skipif(not REAL_FILMS.is_dir(), reason="the real films are not here")
@pytest.mark.parametrize("name", ["chex", "cxr"])
def test_real_films_make_an_export(name: str, tmp_path: Path) -> None:
    manifest = (REAL_FILMS / name / "manifest.csv").read_text().splitlines()
    chosen = [line.replace("images/", f"{REAL_FILMS / name}/images/") for line in manifest[:1]]
    rows = [line for line in manifest if ",masks/" in line][:3]
    folder = tmp_path / name
    folder.mkdir()
    for part in ("images", "masks"):
        (folder / part).symlink_to((REAL_FILMS / name / part).resolve())
    (folder / "manifest.csv").write_text("\n".join([*chosen, *rows]) + "\n")
    assert create(folder, tmp_path / "export").masks == 3
    for image in index_export(tmp_path / "export").images:
        share = read_lung_mask(image.mask_paths, image).mean()
        assert 0.1 < share < 0.7
        assert decode(dcmread(image.path)).grey_hw.std() > 0.05
