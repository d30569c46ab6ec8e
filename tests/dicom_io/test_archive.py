"""An image folder becomes an archive export that can be read back, whoever wrote the rest of it."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import highdicom
import numpy as np
import pytest
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from PIL import Image
from pydicom import dcmread
from pydicom.sr.codedict import codes

from dicom_io.archive import index_export, read_lung_mask, summary
from dicom_io.archive_writer import Created, create_export, read_manifest
from dicom_io.errors import ArchiveError, MaskMismatch
from dicom_io.phantom import draw_phantom
from tests.programs import output_of

RIGHT_LUNG = CodedConcept("3341006", "SCT", "Right lung")
LEFT_LUNG = CodedConcept("44029006", "SCT", "Left lung")
COLUMNS = "id,image,lung_mask,label,findings,patient,view,sex,age,split,source,licence"


def write_images(folder: Path, rows: list[str]) -> None:
    """A manifest, and a phantom with its mask for each row that names them."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number, row in enumerate(rows):
        phantom = draw_phantom(number, 120, 96)
        name = row.partition(",")[0]
        Image.fromarray((phantom.stored_hw // 16).astype(np.uint8)).save(
            folder / "images" / f"{name}.png"
        )
        Image.fromarray(phantom.lungs_hw.astype(np.uint8) * 255).save(
            folder / "masks" / f"{name}.png"
        )
    (folder / "manifest.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")


def create(folder: Path, out: Path) -> Created:
    """Run the writer to its end in this process's pool."""
    writing = create_export(read_manifest(folder), out, jobs=1)
    while True:
        try:
            next(writing)
        except StopIteration as end:
            return end.value


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images-and-manifest"
    write_images(
        folder,
        [
            "a,images/a.png,masks/a.png,normal,,p1,PA,M,52,train,Clinic A,CC0",
            "b,images/b.png,,pneumonia,,p2,AP Supine,F,1-5 years,test,Clinic A,CC0",
            "c,images/c.png,masks/c.png,,,p3,,,,train,Clinic B,CC0",
        ],
    )
    return folder


def test_what_was_written_is_read_back(images: Path, tmp_path: Path) -> None:
    created = create(images, tmp_path / "export")
    assert (created.images, created.masks, created.problems) == (3, 2, ())
    index = index_export(tmp_path / "export")
    assert index.is_sound
    by_patient = {image.patient: image for image in index.images}
    a, b, c = by_patient["p1"], by_patient["p2"], by_patient["p3"]
    assert (a.label, a.split, a.view, a.sex, a.age_years) == ("normal", "train", "PA", "M", 52.0)
    assert (b.label, b.view, b.age_years) == ("pneumonia", "AP Supine", None)
    assert (c.label, c.view, c.source) == (None, "", "Clinic B")
    assert a.pixel_spacing_mm is None, "no pixel size is known, so none may be claimed"
    np.testing.assert_array_equal(
        read_lung_mask(a.mask_paths, a), draw_phantom(0, 120, 96).lungs_hw
    )
    assert b.mask_paths == ()


def test_labels_table_has_the_agreed_columns(images: Path, tmp_path: Path) -> None:
    create(images, tmp_path / "export")
    with (tmp_path / "export" / "labels.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["SOPInstanceUID", "label", "split"]


def test_a_second_run_writes_the_same_objects(images: Path, tmp_path: Path) -> None:
    def hashes(out: Path) -> dict[str, str]:
        create(images, out)
        return {
            str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in out.rglob("*.*")
            if path.is_file()
        }

    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")


def test_one_bad_row_does_not_stop_the_rest(images: Path, tmp_path: Path) -> None:
    (images / "images" / "b.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((7, 7), np.uint8)).save(images / "masks" / "c.png")
    created = create(images, tmp_path / "export")
    assert (created.images, created.masks) == (2, 1)
    assert {image_id for image_id, _ in created.problems} == {"b", "c"}


def test_a_manifest_without_a_needed_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("id,image\n")
    with pytest.raises(ArchiveError, match="lung_mask"):
        read_manifest(tmp_path)


def test_check_counts_and_names_what_is_wrong(images: Path, tmp_path: Path) -> None:
    export = tmp_path / "export"
    create(images, export)
    command = [sys.executable, "-m", "dicom_io.archive", "check", str(export), "--json"]
    sound = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(sound.stdout)["labels"] == {"normal": 1, "pneumonia": 1, "none": 1}

    image_of_mask = next(p.parent / "image.dcm" for p in export.rglob("lungs.dcm"))
    image_of_mask.unlink()
    (export / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    report = json.loads(found.stdout)
    assert len(report["masks_without_image"]) == 1
    assert [Path(entry["path"]).name for entry in report["unreadable"]] == ["broken.dcm"]
    assert len(report["labels_without_image"]) == 1


def other_segmentation(source_path: Path, **options: object) -> Segmentation:
    """A SEG as another producer might write it, over the image at a path."""
    image = dcmread(source_path)
    shape = (image.Rows, image.Columns)
    right_hw = np.zeros(shape, np.uint8)
    right_hw[20:60, 10:30] = 1
    left_hw = np.zeros(shape, np.uint8)
    left_hw[20:60, 60:80] = 1
    kinds = options.get("kinds", (RIGHT_LUNG, LEFT_LUNG))
    labels = options.get("labels", ("right", "left"))
    segments = [
        SegmentDescription(
            number,
            str(label),
            codes.SCT.AnatomicalStructure,
            kind,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, (label, kind) in enumerate(zip(labels, kinds, strict=True), start=1)
    ]
    pixels = np.stack([right_hw, left_hw], axis=-1)[None]
    kind = str(options.get("segmentation_type", "BINARY"))
    if kind == "FRACTIONAL":
        pixels = pixels * np.array([0.7, 0.2])
    if kind == "LABELMAP":
        pixels = (right_hw + 2 * left_hw)[None]
    return Segmentation(
        [image],
        pixels,
        kind,
        segments,
        highdicom.UID(),
        2,
        highdicom.UID(),
        1,
        "Another maker",
        "Another model",
        "1",
        "1",
    )


@pytest.fixture
def image_path(images: Path, tmp_path: Path) -> Path:
    create(images, tmp_path / "export")
    return next((tmp_path / "export").rglob("image.dcm"))


def facts(path: Path) -> SimpleNamespace:
    image = dcmread(path, stop_before_pixels=True)
    return SimpleNamespace(
        sop_instance_uid=str(image.SOPInstanceUID),
        rows=image.Rows,
        columns=image.Columns,
        patient_orientation=tuple(image.PatientOrientation),
    )


def saved(segmentation: Segmentation, path: Path) -> Path:
    segmentation.save_as(path)
    return path


@pytest.mark.parametrize(
    ("kind", "area"), [("BINARY", 1600), ("LABELMAP", 1600), ("FRACTIONAL", 800)]
)
def test_right_and_left_of_another_producer_become_one_mask(
    image_path: Path, tmp_path: Path, kind: str, area: int
) -> None:
    segmentation = other_segmentation(image_path, segmentation_type=kind)
    mask_hw = read_lung_mask([saved(segmentation, tmp_path / "seg.dcm")], facts(image_path))
    assert mask_hw.sum() == area
    assert mask_hw[20:60, 10:30].all()


def test_only_the_lung_segments_count(image_path: Path, tmp_path: Path) -> None:
    segmentation = other_segmentation(
        image_path, kinds=(codes.SCT.Heart, LEFT_LUNG), labels=("heart", "left")
    )
    mask_hw = read_lung_mask([saved(segmentation, tmp_path / "seg.dcm")], facts(image_path))
    assert not mask_hw[20:60, 10:30].any()
    assert mask_hw[20:60, 60:80].all()


def test_masks_that_do_not_fit_say_why(image_path: Path, tmp_path: Path) -> None:
    lungs = saved(other_segmentation(image_path), tmp_path / "lungs.dcm")
    hearts = other_segmentation(image_path, kinds=(codes.SCT.Heart,) * 2, labels=("a", "b"))
    image = facts(image_path)
    with pytest.raises(MaskMismatch, match="no lung segment"):
        read_lung_mask([saved(hearts, tmp_path / "hearts.dcm")], image)
    image.sop_instance_uid = "1.2.3"
    with pytest.raises(MaskMismatch, match="references another image"):
        read_lung_mask([lungs], image)
    wide = facts(image_path)
    wide.columns *= 3
    with pytest.raises(MaskMismatch, match="pixels"):
        read_lung_mask([lungs], wide)
    with pytest.raises(MaskMismatch, match="is no Segmentation"):
        read_lung_mask([image_path], facts(image_path))


def test_a_mask_of_twice_the_size_lands_at_its_place(image_path: Path, tmp_path: Path) -> None:
    path = saved(other_segmentation(image_path), tmp_path / "seg.dcm")
    larger = facts(image_path)
    larger.rows, larger.columns = larger.rows * 2, larger.columns * 2
    mask_hw = read_lung_mask([path], larger)
    assert mask_hw[40:120, 20:60].all()
    assert mask_hw.sum() == 4 * 1600


def test_the_same_image_twice_is_reported(image_path: Path, tmp_path: Path) -> None:
    (tmp_path / "export" / "copy.dcm").write_bytes(image_path.read_bytes())
    index = index_export(tmp_path / "export")
    assert len(index.images) == 3
    assert "another file" in index.unreadable[0][1]
    assert not index.is_sound
    assert summary(index)["images"] == 3


@pytest.mark.interop
def test_dciodvfy_finds_no_error_in_image_and_mask(images: Path, tmp_path: Path) -> None:
    create(images, tmp_path / "export")
    paths = sorted((tmp_path / "export").rglob("*.dcm"))
    assert len(paths) == 5
    for path in paths:
        assert "Error" not in output_of("dciodvfy", path)
