"""An export is read whoever wrote it, and what cannot be used is named instead of stopping it."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SegmentationStorage,
)

from dicom_io.archive import ExportIndex, index_export, read_dataset
from dicom_io.errors import ArchiveError
from dicom_io.part10 import encode_dataset
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.pixels import decode
from dicom_io.uids import MANUFACTURER_MODEL_NAME

PHANTOM = draw_phantom(1, 72, 64)


def film(**changes: object) -> Dataset:
    dataset = phantom_dataset(PHANTOM)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def reasons(index: ExportIndex) -> dict[str, str]:
    return {path.name: reason for path, reason in index.unreadable}


def test_files_are_found_by_content_at_any_depth(tmp_path: Path) -> None:
    write(film(SOPInstanceUID="1.2.1"), tmp_path / "IM0001")
    write(film(SOPInstanceUID="1.2.2"), tmp_path / "a" / "b" / "c" / "picture.jpg")
    write(film(SOPInstanceUID="1.2.3"), tmp_path / "a" / "film.dcm")
    (tmp_path / "notes.txt").write_text("no DICOM, and no one's mistake")
    (tmp_path / "empty").write_bytes(b"")
    index = index_export(tmp_path)
    assert sorted(image.sop_instance_uid for image in index.images) == ["1.2.1", "1.2.2", "1.2.3"]
    assert index.is_sound


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_other_transfer_syntaxes_are_read(tmp_path: Path, syntax: str) -> None:
    dataset = film()
    dataset.file_meta.TransferSyntaxUID = syntax
    write(dataset, tmp_path / "film")
    (image,) = index_export(tmp_path).images
    assert (image.rows, image.columns, image.photometric) == (72, 64, "MONOCHROME2")


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name
)
def test_a_file_without_preamble_is_found(tmp_path: Path, syntax: str) -> None:
    dataset = phantom_dataset(PHANTOM)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = PHANTOM.stored_hw.astype(">u2").tobytes()
    (tmp_path / "IM0001").write_bytes(encode_dataset(dataset, syntax))
    (image,) = index_export(tmp_path).images
    assert image.sop_instance_uid == dataset.SOPInstanceUID
    assert decode(read_dataset(image.path)).grey_hw.std() > 0.1


def test_directories_and_other_objects_are_passed_over(tmp_path: Path) -> None:
    directory = film()
    directory.SOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    write(directory, tmp_path / "DICOMDIR")
    write(film(SOPClassUID=CTImageStorage), tmp_path / "ct.dcm")
    index = index_export(tmp_path)
    assert index.images == ()
    assert index.is_sound


def test_results_of_this_node_are_left_out(tmp_path: Path) -> None:
    write(film(ManufacturerModelName=MANUFACTURER_MODEL_NAME), tmp_path / "overlay.dcm")
    assert index_export(tmp_path).images == ()


def test_a_broken_off_copy_is_reported(tmp_path: Path) -> None:
    whole = write(film(SOPInstanceUID="1.2.1"), tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "half.dcm").write_bytes(whole[: len(whole) // 2])
    index = index_export(tmp_path)
    assert [image.path.name for image in index.images] == ["whole.dcm"]
    assert "truncated" in reasons(index)["half.dcm"]


@pytest.mark.parametrize("is_deflated", [False, True])
def test_a_mask_of_very_many_items_is_told_before_it_is_parsed(
    tmp_path: Path, is_deflated: bool
) -> None:
    mask = film(SOPInstanceUID="1.2.3", SOPClassUID=SegmentationStorage)
    mask.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    lung = Dataset()
    lung.SegmentNumber, lung.SegmentLabel = 1, "lungs"
    mask.SegmentSequence = [lung]
    few, many = (tmp_path / name for name in ("few", "many"))
    for path, items in ((few, 1_000), (many, 110_000)):
        mask.add_new(0x00082112, "SQ", None)
        mask[0x00082112] = RawDataElement(
            Tag(0x00082112), "SQ", items * 8, b"\xfe\xff\x00\xe0\0\0\0\0" * items, 0, False, True
        )
        if is_deflated:
            mask.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        write(mask, path)
    index = index_export(tmp_path)
    assert index.masks_without_image == (few,)
    assert reasons(index) == {"many": "a mask of more than 100000 items"}


def test_a_pipe_does_not_hold_the_walk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    write(film(), tmp_path / "film.dcm")
    assert len(index_export(tmp_path).images) == 1


def test_labels_may_stand_in_several_tables_and_one_bad_line_spoils_only_itself(
    tmp_path: Path,
) -> None:
    for number in (1, 2, 3):
        write(film(SOPInstanceUID=f"1.2.{number}"), tmp_path / str(number) / "film")
    header = "SOPInstanceUID,label,split\n"
    (tmp_path / "1" / "labels.csv").write_text(header + "1.2.1,Pneumonia,train\n")
    (tmp_path / "2" / "labels.csv").write_text(
        "\ufeff" + header + "1.2.2\n,normal,train\n1.2.3,tumour,test\n1.2.3,normal,test\n",
        encoding="utf-8",
    )
    (tmp_path / "3" / "labels.csv").write_text("uid,class\n1.2.3,normal\n")
    index = index_export(tmp_path)
    found = {i.sop_instance_uid: (i.label, i.split) for i in index.images}
    assert found == {
        "1.2.1": ("pneumonia", "train"),
        "1.2.2": (None, None),
        "1.2.3": ("normal", "test"),
    }
    assert len(index.unreadable) == 3


def test_a_split_is_known_however_it_is_written_and_an_unknown_one_is_told_and_kept_away(
    tmp_path: Path,
) -> None:
    words = ("Train", " TEST ", "val", "", "Training")
    for number, _ in enumerate(words):
        write(film(SOPInstanceUID=f"1.2.{number}"), tmp_path / f"film-{number}")
    lines = (f"1.2.{number},normal,{word}\n" for number, word in enumerate(words))
    (tmp_path / "labels.csv").write_text("SOPInstanceUID,label,split\n" + "".join(lines))
    index = index_export(tmp_path)
    assert [image.split for image in index.images] == ["train", "test", "val", None, "training"]
    assert {image.label for image in index.images} == {"normal"}
    ((_, reason),) = index.unreadable
    assert "line 6" in reason
    assert "train, val, test" in reason
    assert "not trained on" in reason


def test_an_unknown_label_costs_the_label_and_not_the_split(tmp_path: Path) -> None:
    write(film(SOPInstanceUID="1.2.1"), tmp_path / "film")
    (tmp_path / "labels.csv").write_text("SOPInstanceUID,label,split\n1.2.1,tumour,test\n")
    index = index_export(tmp_path)
    assert [(image.label, image.split) for image in index.images] == [(None, "test")]
    assert "normal, pneumonia" in reasons(index)["labels.csv"]


@pytest.mark.parametrize("split_first", [True, False])
def test_label_and_split_may_stand_in_different_tables(tmp_path: Path, split_first: bool) -> None:
    write(film(SOPInstanceUID="1.2.1"), tmp_path / "film")
    for folder, has_split in (("1", split_first), ("2", not split_first)):
        (tmp_path / folder).mkdir()
        line = "1.2.1,,test" if has_split else "1.2.1,normal,"
        table = tmp_path / folder / "labels.csv"
        table.write_text(f"SOPInstanceUID,label,split\n{line}\n")
    index = index_export(tmp_path)
    assert [(image.label, image.split) for image in index.images] == [("normal", "test")]
    assert index.is_sound


def test_two_labels_for_one_image_are_reported(tmp_path: Path) -> None:
    write(film(SOPInstanceUID="1.2.1"), tmp_path / "film")
    (tmp_path / "labels.csv").write_text(
        "SOPInstanceUID,label,split\n1.2.1,normal,train\n1.2.1,pneumonia,train\n"
    )
    assert "1.2.1" in reasons(index_export(tmp_path))["labels.csv"]


@pytest.mark.parametrize("labels", ["np", "pn", "npn", "pnp", "nnp"])
def test_of_labels_that_contradict_each_other_none_counts_whatever_their_order(
    tmp_path: Path, labels: str
) -> None:
    write(film(SOPInstanceUID="1.2.1"), tmp_path / "film")
    words = {"n": "normal", "p": "pneumonia"}
    lines = "".join(f"1.2.1,{words[label]},val\n" for label in labels)
    (tmp_path / "labels.csv").write_text(f"SOPInstanceUID,label,split\n{lines}")
    index = index_export(tmp_path)
    assert [(image.label, image.split) for image in index.images] == [(None, "val")]
    assert "neither counts" in reasons(index)["labels.csv"]


@pytest.mark.parametrize("splits", [("train", "test"), ("test", "train"), ("train", "", "test")])
def test_a_film_that_one_table_keeps_from_training_is_kept_from_it_whatever_another_says(
    tmp_path: Path, splits: tuple[str, ...]
) -> None:
    write(film(SOPInstanceUID="1.2.1"), tmp_path / "film")
    for number, split in enumerate(splits):
        table = tmp_path / str(number) / "labels.csv"
        table.parent.mkdir()
        table.write_text(f"SOPInstanceUID,label,split\n1.2.1,normal,{split}\n")
    index = index_export(tmp_path)
    assert [(image.label, image.split) for image in index.images] == [("normal", "test")]
    assert "another split elsewhere; test counts" in reasons(index)["labels.csv"]


def test_only_a_calibrated_spacing_is_taken(tmp_path: Path) -> None:
    without = film(SOPInstanceUID="1.2.1", ImagerPixelSpacing=[0.2, 0.2])
    del without.PixelSpacing
    write(without, tmp_path / "1")
    write(film(SOPInstanceUID="1.2.2", PixelSpacing=[0.3, 0.25]), tmp_path / "2")
    spacings = [image.pixel_spacing_mm for image in index_export(tmp_path).images]
    assert spacings == [None, (0.3, 0.25)]


@pytest.mark.parametrize(
    ("age", "years"), [("052Y", 52.0), ("018M", 1.5), ("", None), ("52", None), ("1-5 years", None)]
)
def test_an_age_is_taken_only_as_the_standard_writes_it(
    tmp_path: Path, age: str, years: float | None
) -> None:
    write(film(PatientAge=age), tmp_path / "film")
    assert index_export(tmp_path).images[0].age_years == years


def test_machine_and_sender_of_a_film_are_read(tmp_path: Path) -> None:
    named = film(SOPInstanceUID="1.2.1", StationName="ROOM 3")
    named.file_meta.SourceApplicationEntityTitle = "BEDSIDE"
    write(named, tmp_path / "1")
    write(film(SOPInstanceUID="1.2.2"), tmp_path / "2")
    found = [(image.station, image.sender) for image in index_export(tmp_path).images]
    assert found == [("ROOM 3", "BEDSIDE"), ("", "")]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no folder"):
        index_export(tmp_path / "missing")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_never_stop_the_walk(tmp_path: Path, data: st.DataObject) -> None:
    whole = write(film(SOPInstanceUID="1.2.1"), tmp_path / "whole.dcm").read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for position in data.draw(st.lists(st.integers(0, 1500), max_size=8)):
        if position < len(damaged):
            damaged[position] = data.draw(st.integers(0, 255))
    (tmp_path / "damaged.dcm").write_bytes(bytes(damaged))
    index = index_export(tmp_path)
    assert {image.path.name for image in index.images} >= {"whole.dcm"} or (
        "whole.dcm" in reasons(index)
    )
