"""A lung mask is read from any producer's SEG, lands where it belongs, or is refused with why."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from dicom_io.errors import MaskMismatch
from dicom_io.lung_mask import read_lung_mask
from dicom_io.lung_segments import lung_segments, referenced_images
from dicom_io.phantom import draw_phantom, phantom_dataset

# 67 * 73 pixels are no whole number of bytes, so packed frames do not begin at one.
ROWS, COLUMNS = 67, 73
LUNG = codes.SCT.Lung


@dataclass(frozen=True)
class Image:
    sop_instance_uid: str
    rows: int = ROWS
    columns: int = COLUMNS
    patient_orientation: tuple[str, ...] = ("L", "F")


def source(number: int = 1) -> Dataset:
    dataset = phantom_dataset(draw_phantom(1, ROWS, COLUMNS), sop_instance_uid=f"1.2.{number}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def square(top: int, left: int) -> NDArray[np.uint8]:
    mask_hw = np.zeros((ROWS, COLUMNS), np.uint8)
    mask_hw[top : top + 9, left : left + 5] = 1
    return mask_hw


def segmentation(
    masks_nhw: list[NDArray[np.uint8]],
    *,
    labels: list[str],
    types: list[CodedConcept] | None = None,
    category: CodedConcept = codes.SCT.AnatomicalStructure,
    kind: str = "BINARY",
    values: NDArray[np.generic] | None = None,
) -> Segmentation:
    """A SEG with one segment for each mask, or for each channel or label of ``values``."""
    values_hw = np.stack(masks_nhw, axis=-1) if values is None else values
    segments = [
        SegmentDescription(number, label, category, of_type, SegmentAlgorithmTypeValues.MANUAL)
        for number, (label, of_type) in enumerate(
            zip(labels, types or [LUNG] * len(labels), strict=True), start=1
        )
    ]
    return Segmentation(
        [source()], values_hw[None], kind, segments,
        "1.2.9.1", 2, "1.2.9.2", 1, "Another maker", "Another model", "1", "1",
    )  # fmt: skip


def read(dataset: Dataset, tmp_path: Path, image: Image | None = None) -> NDArray[np.bool_]:
    path = tmp_path / "seg.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return read_lung_mask([path], image or Image("1.2.1"))


def test_frames_that_begin_inside_a_byte_are_read_exactly(tmp_path: Path) -> None:
    masks_nhw = [square(3 + 11 * n, 2 + 13 * n) for n in range(5)]
    types = [LUNG, codes.SCT.Heart, LUNG, codes.SCT.Heart, LUNG]
    found_hw = read(segmentation(masks_nhw, labels=list("abcde"), types=types), tmp_path)
    expected_hw = (masks_nhw[0] + masks_nhw[2] + masks_nhw[4]).astype(bool)
    np.testing.assert_array_equal(found_hw, expected_hw)


@pytest.mark.parametrize(
    "label", ["Lungs", "Right_Lung", "left lung 2", "LUNG FIELD", "Lungenflügel rechts", "poumons"]
)
def test_a_label_names_a_lung_where_the_code_is_general(label: str) -> None:
    dataset = segmentation([square(3, 3)], labels=[label], types=[codes.SCT.Tissue])
    assert lung_segments(dataset) == {1}


@pytest.mark.parametrize(
    "label", ["lung nodule", "Lung opacity", "pneumonia, left lung", "Heart", "lungless", "right"]
)
def test_a_lesion_in_a_lung_is_no_lung(label: str) -> None:
    dataset = segmentation([square(3, 3)], labels=[label], types=[codes.SCT.Tissue])
    assert lung_segments(dataset) == frozenset()


def test_an_abnormality_is_no_lung_even_if_labelled_by_its_place() -> None:
    dataset = segmentation(
        [square(3, 3)],
        labels=["left lung"],
        types=[codes.SCT.Nodule],
        category=codes.SCT.MorphologicallyAbnormalStructure,
    )
    assert lung_segments(dataset) == frozenset()


def test_only_the_frames_of_the_asked_image_count(tmp_path: Path) -> None:
    dataset = segmentation([square(3, 3), square(40, 40)], labels=["right lung", "left lung"])
    of_second_frame = deepcopy(dataset.PerFrameFunctionalGroupsSequence[1])
    derivation = of_second_frame.DerivationImageSequence[0]
    derivation.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.2"
    dataset.PerFrameFunctionalGroupsSequence[1] = of_second_frame
    assert referenced_images(dataset) == {"1.2.1", "1.2.2"}
    first_hw = read(dataset, tmp_path)
    second_hw = read(dataset, tmp_path, Image("1.2.2"))
    np.testing.assert_array_equal(first_hw, square(3, 3).astype(bool))
    np.testing.assert_array_equal(second_hw, square(40, 40).astype(bool))


def test_one_segment_needs_no_identification_of_its_frames(tmp_path: Path) -> None:
    dataset = segmentation([square(3, 3)], labels=["lungs"])
    for groups in (
        *dataset.PerFrameFunctionalGroupsSequence,
        *dataset.SharedFunctionalGroupsSequence,
    ):
        groups.pop("SegmentIdentificationSequence", None)
    np.testing.assert_array_equal(read(dataset, tmp_path), square(3, 3).astype(bool))


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (("L", "F"), lambda image_hw: image_hw),
        (("R", "F"), np.fliplr),
        (("L", "H"), np.flipud),
        (("R", "H"), lambda image_hw: np.rot90(image_hw, 2)),
        (("F", "L"), np.transpose),
        (("H", "L"), lambda image_hw: np.rot90(image_hw, -1)),
        (("F", "R"), lambda image_hw: np.rot90(image_hw, 1)),
        (("H", "R"), lambda image_hw: np.rot90(image_hw, 2).T),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else "",
)
def test_a_mask_drawn_in_another_orientation_is_turned_to_the_image(
    tmp_path: Path, orientation: tuple[str, str], turn: object
) -> None:
    dataset = segmentation([square(3, 50)], labels=["lungs"])
    drawn_hw = np.ascontiguousarray(turn(square(3, 50)))  # type: ignore[operator]
    dataset.Rows, dataset.Columns = drawn_hw.shape
    dataset.PatientOrientation = list(orientation)
    packed = np.packbits(drawn_hw.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    np.testing.assert_array_equal(read(dataset, tmp_path), square(3, 50).astype(bool))


@pytest.mark.parametrize("orientation", [("P", "F"), ("F", "A"), ("L", "P")])
def test_a_mask_that_shows_another_view_than_its_image_is_refused(
    tmp_path: Path, orientation: tuple[str, str]
) -> None:
    dataset = segmentation([square(3, 50)], labels=["lungs"])
    dataset.PatientOrientation = list(orientation)
    with pytest.raises(MaskMismatch, match=f"another view.*{'/'.join(orientation)} and L/F"):
        read(dataset, tmp_path)


@pytest.mark.parametrize("orientation", [("L", "L"), ("L", "R"), ("X", "F"), ("F", "F")])
def test_an_orientation_that_cannot_be_leaves_the_mask_as_it_is_drawn(
    tmp_path: Path, orientation: tuple[str, str]
) -> None:
    dataset = segmentation([square(3, 50)], labels=["lungs"])
    dataset.PatientOrientation = list(orientation)
    np.testing.assert_array_equal(read(dataset, tmp_path), square(3, 50).astype(bool))


def test_a_mask_without_a_pixel_is_refused(tmp_path: Path) -> None:
    dataset = segmentation([square(3, 3)], labels=["lungs"])
    dataset.PixelData = b"\0" * len(dataset.PixelData)
    with pytest.raises(MaskMismatch, match="without a single pixel"):
        read(dataset, tmp_path)


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("PixelData", b"\0\0", "cannot be read"),
        ("Rows", 0, "without a single pixel"),
        ("BitsAllocated", 13, "cannot be read"),
        ("Rows", 65535, "cannot be read|too large|pixels"),
    ],
)
def test_a_damaged_mask_is_refused_with_its_path(
    tmp_path: Path, keyword: str, value: object, reason: str
) -> None:
    dataset = segmentation([square(3, 3)], labels=["lungs"])
    setattr(dataset, keyword, value)
    with pytest.raises(MaskMismatch, match=rf"seg\.dcm.*({reason})"):
        read(dataset, tmp_path)


def test_an_absurd_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    dataset = segmentation([square(3, 3)], labels=["lungs"])
    dataset.Rows = dataset.Columns = 60000
    with pytest.raises(MaskMismatch, match="too large"):
        read(dataset, tmp_path)


def test_a_file_that_is_gone_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(MaskMismatch, match=r"gone\.dcm"):
        read_lung_mask([tmp_path / "gone.dcm"], Image("1.2.1"))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_every_type_of_segmentation_is_read(tmp_path: Path, kind: str) -> None:
    right_hw, left_hw = square(3, 3), square(40, 40)
    values = {
        "BINARY": np.stack([right_hw, left_hw], axis=-1),
        "LABELMAP": right_hw + 2 * left_hw,
        "FRACTIONAL": np.stack([0.7 * right_hw + 0.2 * left_hw, 0.5 * left_hw], axis=-1),
    }
    found_hw = read(
        segmentation([], labels=["right lung", "left lung"], kind=kind, values=values[kind]),
        tmp_path,
    )
    np.testing.assert_array_equal(found_hw, (right_hw + left_hw).astype(bool))


def test_a_mask_of_half_the_size_lands_at_its_place(tmp_path: Path) -> None:
    larger = Image("1.2.1", 2 * ROWS, 2 * COLUMNS)
    found_hw = read(segmentation([square(3, 3)], labels=["lungs"]), tmp_path, larger)
    np.testing.assert_array_equal(found_hw, square(3, 3).repeat(2, 0).repeat(2, 1).astype(bool))


def test_a_mask_of_another_shape_or_image_or_organ_says_so(tmp_path: Path) -> None:
    lungs = segmentation([square(3, 3)], labels=["lungs"])
    with pytest.raises(MaskMismatch, match=r"seg\.dcm is 73 x 67, its image 219 x 67 pixels"):
        read(lungs, tmp_path, Image("1.2.1", ROWS, 3 * COLUMNS))
    with pytest.raises(MaskMismatch, match=r"seg\.dcm references another image than 1\.2\.3"):
        read(lungs, tmp_path, Image("1.2.3"))
    heart = segmentation([square(3, 3)], labels=["heart"], types=[codes.SCT.Heart])
    with pytest.raises(MaskMismatch, match=r"seg\.dcm has no lung segment"):
        read(heart, tmp_path)
    with pytest.raises(MaskMismatch, match=r"seg\.dcm is no Segmentation"):
        read(source(), tmp_path)


def test_what_is_read_back_is_what_a_viewer_decodes(tmp_path: Path) -> None:
    dataset = segmentation([square(3, 3), square(20, 30)], labels=["right lung", "left lung"])
    found_hw = read(dataset, tmp_path)
    frames_nhw = dcmread(tmp_path / "seg.dcm").pixel_array
    np.testing.assert_array_equal(found_hw, frames_nhw.any(axis=0))
