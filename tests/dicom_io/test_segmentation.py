from dataclasses import replace
from datetime import UTC, datetime

import gdcm
import highdicom
import numpy as np
import pytest

from dicom_io.findings import LungMasks
from dicom_io.result_object import decoded, encoded
from dicom_io.segmentation import build_segmentation
from tests.dicom_io.sources import SOURCES, findings_in, given, radiograph

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SCT = "SCT"


def with_lungs(source, right_hw, left_hw):
    return replace(findings_in(source), lungs=LungMasks(right_hw, left_hw, True, "drawn"))


def masks_of(dataset):
    """Segment number -> mask, by highdicom's own reader."""
    segmentation = highdicom.seg.Segmentation.from_dataset(dataset)
    frames = segmentation.get_pixels_by_source_instance(
        [dataset.SourceImageSequence[0].ReferencedSOPInstanceUID], combine_segments=False
    )
    return {number: frames[0, ..., number - 1].astype(bool) for number in (1, 2)}


@pytest.mark.parametrize("label_map", [False, True], ids=["binary", "label map"])
@pytest.mark.parametrize("name", SOURCES)
def test_highdicom_reads_the_same_masks_back_pixel_for_pixel(name, label_map):
    source = SOURCES[name]()
    findings = findings_in(source)
    result = build_segmentation(source, findings, CREATED, label_map=label_map)
    masks = masks_of(decoded(encoded(result)))
    assert np.array_equal(masks[1], findings.lungs.right_hw)
    assert np.array_equal(masks[2], findings.lungs.left_hw)


@pytest.mark.parametrize("label_map", [False, True], ids=["binary", "label map"])
@pytest.mark.parametrize(("rows", "columns"), [(65, 67), (64, 129), (501, 77)])
def test_a_square_in_a_corner_is_found_there_whatever_the_size(rows, columns, label_map):
    source = radiograph(
        given(PatientOrientation=["R", "F"], PixelSpacing=[1.0, 2.0]), rows=rows, columns=columns
    )
    right_hw, left_hw = np.zeros((2, rows, columns), dtype=bool)
    right_hw[:5, -7:] = True
    left_hw[-3:, :2] = True
    result = build_segmentation(
        source, with_lungs(source, right_hw, left_hw), CREATED, label_map=label_map
    )
    masks = masks_of(decoded(encoded(result)))
    assert np.array_equal(masks[1], right_hw)
    assert np.array_equal(masks[2], left_hw)


def test_a_mask_of_5000_by_5000_pixels_comes_back():
    source = radiograph(given(Rows=5000, Columns=5000))  # its pixel data is not needed
    right_hw, left_hw = np.zeros((2, 5000, 5000), dtype=bool)
    right_hw[4990:, 3:2000] = True
    left_hw[7:900, 4999] = True
    result = decoded(
        encoded(build_segmentation(source, with_lungs(source, right_hw, left_hw), CREATED))
    )
    masks = masks_of(result)
    assert np.array_equal(masks[1], right_hw)
    assert np.array_equal(masks[2], left_hw)


def test_gdcm_reads_the_same_bits(tmp_path):
    source = radiograph(rows=96, columns=133)
    lungs = findings_in(source).lungs
    path = tmp_path / "segmentation.dcm"
    path.write_bytes(encoded(build_segmentation(source, findings_in(source), CREATED)))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    assert list(image.GetDimensions()) == [133, 96, 2]
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")[: 2 * 96 * 133]
    assert np.array_equal(bits.reshape(2, 96, 133), np.stack([lungs.right_hw, lungs.left_hw]))


def test_segments_are_coded_lungs_with_laterality_found_automatically():
    segments = build_segmentation(radiograph(), findings_in(radiograph()), CREATED).SegmentSequence
    for segment, number, side, code in zip(
        segments, (1, 2), ("Right", "Left"), ("24028007", "7771000"), strict=True
    ):
        assert segment.SegmentNumber == number
        assert segment.SegmentLabel == f"{side} lung"
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("39607008", SCT)
        modifier = kind.SegmentedPropertyTypeModifierCodeSequence[0]
        assert (modifier.CodeValue, modifier.CodingSchemeDesignator) == (code, SCT)
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("MultiMix", "0.1.0")
        assert "weights_sha256=3fa9c1" in algorithm.AlgorithmParameters
        assert len(segment.RecommendedDisplayCIELabValue) == 3
    assert segments[0].TrackingUID != segments[1].TrackingUID


def test_sides_that_are_not_certain_are_labelled_as_assumed():
    source = radiograph(given(PatientOrientation=""))
    for segment in build_segmentation(source, findings_in(source), CREATED).SegmentSequence:
        assert segment.SegmentLabel.endswith("lung (assumed)")
        assert "Patient Orientation is missing" in segment.SegmentDescription


def test_both_kinds_of_reference_to_the_source_are_there():
    source = radiograph()
    result = build_segmentation(source, findings_in(source), CREATED)
    [series] = result.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    for frame in result.PerFrameFunctionalGroupsSequence:
        [image] = frame.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.SpatialLocationsPreserved == "YES"


@pytest.mark.parametrize("name", SOURCES)
def test_the_grid_is_the_sources_own_with_its_orientation(name):
    source = SOURCES[name]()
    result = build_segmentation(source, findings_in(source), CREATED)
    assert (result.Rows, result.Columns) == (source.Rows, source.Columns)
    assert (result.PatientOrientation or None) == (source.get("PatientOrientation") or None)
    assert "PixelMeasuresSequence" not in result.SharedFunctionalGroupsSequence[0]


def test_the_frame_of_reference_is_the_sources_if_it_has_one():
    source = SOURCES["frame of reference"]()
    result = build_segmentation(source, findings_in(source), CREATED)
    assert result.FrameOfReferenceUID == source.FrameOfReferenceUID
    without = build_segmentation(radiograph(), findings_in(radiograph()), CREATED)
    assert "FrameOfReferenceUID" not in without


@pytest.mark.parametrize("label_map", [False, True], ids=["binary", "label map"])
def test_a_lung_that_was_not_found_keeps_its_segment_number(label_map):
    source = radiograph()
    left_hw = findings_in(source).lungs.left_hw
    findings = with_lungs(source, np.zeros_like(left_hw), left_hw)
    result = decoded(encoded(build_segmentation(source, findings, CREATED, label_map=label_map)))
    masks = masks_of(result)
    assert not masks[1].any()
    assert np.array_equal(masks[2], left_hw)


def test_masks_of_another_size_or_that_overlap_are_refused():
    source = radiograph()
    small = np.zeros((64, 64), dtype=bool)
    with pytest.raises(ValueError, match="64"):
        build_segmentation(source, with_lungs(source, small, small), CREATED)
    full = np.ones((source.Rows, source.Columns), dtype=bool)
    with pytest.raises(ValueError, match="overlap"):
        build_segmentation(source, with_lungs(source, full, full), CREATED)


def test_padding_of_the_bits_is_zero():
    source = radiograph(rows=65, columns=65)
    full = np.ones((65, 65), dtype=bool)
    result = build_segmentation(source, with_lungs(source, full, ~full), CREATED)
    bits = np.unpackbits(np.frombuffer(result.PixelData, np.uint8), bitorder="little")
    assert len(result.PixelData) % 2 == 0
    assert bits.sum() == full.sum()
