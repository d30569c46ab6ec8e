"""Every picture of a manifest becomes an object or a reason, and nothing is made up for it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from dicom_io.archive import index_export, read_lung_mask
from dicom_io.archive_writer import create_export
from dicom_io.errors import ArchiveError
from dicom_io.manifest import read_manifest
from dicom_io.phantom import draw_phantom
from dicom_io.pixels import decode, network_image
from tests.dicom_io.picture_folders import COLUMNS, create, picture_folder

PHANTOM = draw_phantom(0, 120, 96)
GREY = (PHANTOM.stored_hw // 16).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "pictures")


def objects_of_row(row: str, folder: Path) -> tuple[Dataset, Path]:
    """The radiograph that one manifest row becomes, and the folder of its export."""
    (folder / "manifest.csv").write_text(f"{COLUMNS}\n{row}\n")
    out = folder / "export"
    created = create(folder, out)
    assert created.images == 1, created.problems
    return dcmread(next(out.rglob("image.dcm"))), out


def test_a_second_run_writes_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    def hashes(out: Path) -> dict[str, str]:
        create(pictures, out)
        return {
            str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in out.rglob("*.*")
            if path.is_file()
        }

    first = hashes(tmp_path / "first")
    assert len(first) == 7
    assert hashes(tmp_path / "second") == first
    assert hashes(tmp_path / "first") == first


def test_one_bad_row_does_not_stop_the_rest(pictures: Path, tmp_path: Path) -> None:
    (pictures / "images" / "b.png").write_bytes(b"no picture")
    Image.fromarray(np.ones((70, 70), np.uint8)).save(pictures / "masks" / "c.png")
    created = create(pictures, tmp_path / "export")
    assert (created.images, created.masks) == (2, 1)
    assert {image_id for image_id, _ in created.problems} == {"b", "c"}
    assert index_export(tmp_path / "export").is_sound


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,images/none.png,,normal,,p,,,,,s,l", "none.png"),
        ("x,images/a.png,,tumour,,p,,,,,s,l", "label"),
        (f"x,images/a.png,,normal,,{'p' * 65},,,,,s,l", "Patient ID"),
        ("x,images/a.png,,normal,,p\\q,,,,,s,l", "Patient ID"),
        ("x,,,normal,,p,,,,,s,l", "pictures"),
        ("x", "label|pictures"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(pictures: Path, row: str, reason: str) -> None:
    (pictures / "manifest.csv").write_text(f"{COLUMNS}\n{row}\n")
    created = create(pictures, pictures / "export")
    assert created.images == 0
    ((image_id, problem),) = created.problems
    assert image_id == "x"
    assert any(word in problem for word in reason.split("|"))


def test_an_empty_mask_is_reported_and_not_written(pictures: Path) -> None:
    Image.fromarray(np.zeros((120, 96), np.uint8)).save(pictures / "masks" / "a.png")
    created = create(pictures, pictures / "export")
    assert created.masks == 1
    assert "empty" in created.problems[0][1]


def test_a_mask_that_went_bad_does_not_leave_the_old_one_standing(pictures: Path) -> None:
    create(pictures, pictures / "export")
    (pictures / "masks" / "a.png").write_bytes(b"broken")
    create(pictures, pictures / "export")
    assert index_export(pictures / "export").masks == 1


def test_the_same_id_twice_is_reported_and_the_first_kept(pictures: Path) -> None:
    first = "a,images/a.png,,normal,,p1,PA,,,train,s,l"
    (pictures / "manifest.csv").write_text(
        f"{COLUMNS}\n{first}\n{first.replace('normal', 'pneumonia')}\n"
    )
    created = create(pictures, pictures / "export")
    assert (created.images, len(created.problems)) == (1, 1)
    assert index_export(pictures / "export").images[0].label == "normal"


def test_a_second_split_in_the_same_folder_keeps_the_labels_of_the_first(pictures: Path) -> None:
    rows, out = read_manifest(pictures), pictures / "export"
    for split in ("train", "test"):
        assert list(create_export([row for row in rows if row.split == split], out, jobs=1))
    assert sorted(str(image.label) for image in index_export(out).images) == [
        "None",
        "normal",
        "pneumonia",
    ]


def test_a_foreign_table_is_not_overwritten(pictures: Path) -> None:
    out = pictures / "export"
    out.mkdir()
    (out / "labels.csv").write_text("uid,class\n1.2,normal\n")
    with pytest.raises(ArchiveError, match=r"labels\.csv"):
        create(pictures, out)
    assert (out / "labels.csv").read_text() == "uid,class\n1.2,normal\n"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_colour_is_turned_to_grey(pictures: Path, mode: str) -> None:
    Image.fromarray(GREY).convert(mode).save(pictures / "images" / "x.png")
    image, _ = objects_of_row("x,images/x.png,,normal,,p,PA,,,,s,l", pictures)
    assert np.abs(image.pixel_array.astype(int) - GREY).max() <= 1


def test_a_deep_picture_keeps_its_depth(pictures: Path) -> None:
    Image.fromarray(PHANTOM.stored_hw).save(pictures / "images" / "x.png")
    image, _ = objects_of_row("x,images/x.png,,normal,,p,PA,,,,s,l", pictures)
    np.testing.assert_array_equal(image.pixel_array, PHANTOM.stored_hw)
    shallow, _ = objects_of_row(
        "y,images/a.png,,normal,,p,PA,,,,s,l", picture_folder(pictures / "y")
    )
    difference = network_image(decode(image)).astype(int) - network_image(decode(shallow))
    assert np.abs(difference).max() <= 3


def test_what_a_jpeg_lost_is_declared_and_a_png_declares_no_loss(pictures: Path) -> None:
    path = pictures / "images" / "x.jpg"
    Image.fromarray(GREY).save(path, quality=80)
    image, _ = objects_of_row("x,images/x.jpg,,normal,,p,PA,,,,s,l", pictures)
    assert image.LossyImageCompression == "01"
    assert float(image.LossyImageCompressionRatio) == pytest.approx(
        GREY.size / path.stat().st_size, abs=0.01
    )
    lossless, _ = objects_of_row(
        "y,images/a.png,,normal,,p,PA,,,,s,l", picture_folder(pictures / "y")
    )
    assert lossless.LossyImageCompression == "00"
    assert "LossyImageCompressionRatio" not in lossless


def test_a_mask_of_ones_is_a_mask(pictures: Path) -> None:
    Image.fromarray(PHANTOM.lungs_hw.astype(np.uint8)).save(pictures / "masks" / "x.png")
    _, out = objects_of_row("x,images/a.png,masks/x.png,normal,,p,PA,,,,s,l", pictures)
    (image,) = index_export(out).images
    np.testing.assert_array_equal(read_lung_mask(image.mask_paths, image), PHANTOM.lungs_hw)


@pytest.mark.parametrize(
    ("sex", "age", "expected"),
    [
        ("f", "52", ("F", "052Y")),
        ("", "1-5 years", ("", None)),
        ("unknown", "-3", ("", None)),
        ("M", "0.5", ("M", "006M")),
        ("O", "900", ("O", None)),
    ],
)
def test_sex_and_age_are_written_only_as_the_standard_knows_them(
    pictures: Path, sex: str, age: str, expected: tuple[str, str | None]
) -> None:
    image, _ = objects_of_row(f"x,images/a.png,,normal,,p,PA,{sex},{age},,s,l", pictures)
    assert (image.PatientSex, image.get("PatientAge")) == expected


def test_what_is_not_known_stays_empty(pictures: Path) -> None:
    image, _ = objects_of_row("x,images/a.png,,,,,,,,,,", pictures)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "ViewPosition"):
        assert not image[keyword].value
    assert "PixelSpacing" not in image
    assert "nominal" in image.DerivationDescription


def test_a_long_source_ends_at_a_word_and_odd_characters_do_not_split_it(pictures: Path) -> None:
    kept = "a clinic with a name of many words that goes on for longer than"
    source = kept.replace("a ", "a \\ ", 1) + " allowed"
    image, _ = objects_of_row(f"x,images/a.png,,normal,,p,PA,,,,{source},l", pictures)
    assert image.InstitutionName == kept


@pytest.mark.parametrize("content", [b"id,image\n", b"\xff\xfe\x00broken", b""])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"manifest\.csv"):
        read_manifest(tmp_path)
