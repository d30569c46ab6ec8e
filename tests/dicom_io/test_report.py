from dataclasses import replace
from datetime import UTC, datetime

import highdicom
import numpy as np
import pytest

from dicom_io.findings import ModelIdentity
from dicom_io.report import build_report
from dicom_io.result_object import decoded, encoded
from dicom_io.secondary_capture import build_secondary_capture
from dicom_io.segmentation import build_segmentation
from dicom_io.uids import ResultKind
from tests.dicom_io.sources import MODEL, SOURCES, findings_in, given, radiograph
from tests.dicom_io.test_contours import filled

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SEGMENTATION = (ResultKind.SEGMENTATION,)


def read(source, findings=None, **options):
    """The report as highdicom reads it from a file."""
    built = build_report(source, findings or findings_in(source), CREATED, **options)
    return highdicom.sr.ComprehensiveSR.from_dataset(decoded(encoded(built)))


def assessment(report):
    [group] = [
        group
        for group in report.content.get_image_measurement_groups()
        if group.tracking_identifier == "pneumonia"
    ]
    return group


def lungs(report):
    groups = report.content.get_planar_roi_measurement_groups()
    return {group.tracking_identifier: group for group in groups}


def numbers(group):
    return {item.name.meaning: (item.value, item.unit.value) for item in group.get_measurements()}


def codes(group):
    evaluations = group.get_qualitative_evaluations()
    # Highdicom counts the family of the algorithm as an evaluation, too.
    return {
        item.name.meaning: item.value.meaning
        for item in evaluations
        if item.name.meaning != "Algorithm Family"
    }


def texts(group):
    return [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]


def test_it_is_an_imaging_measurement_report_and_preliminary():
    report = read(radiograph())
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.CompletionFlag, report.PreliminaryFlag) == ("COMPLETE", "PRELIMINARY")
    assert report.VerificationFlag == "UNVERIFIED"


@pytest.mark.parametrize(
    ("probability", "scores", "presence"),
    [
        (0.87, (None, None), "Present"),
        (0.42, (None, None), "Present"),
        (0.41, (None, None), "Absent"),
        (0.87, (0.4, 1.7), "Present"),
        (0.87, (1.8, 1.7), "Indeterminate"),
    ],
)
def test_pneumonia_is_present_absent_or_indeterminate(probability, scores, presence):
    source = radiograph()
    findings = replace(
        findings_in(source, probability=probability), gate_score=scores[0], gate_threshold=scores[1]
    )
    group = assessment(read(source, findings))
    assert group.finding_type.value == "233604007"
    assert codes(group) == {"Presence": presence}
    expected = {
        "Certainty of Finding": (pytest.approx(100 * probability), "%"),
        "Operating point": (pytest.approx(42.0), "%"),
    }
    if scores[0] is not None:
        expected |= {
            "Unlikeness to training images": (scores[0], "1"),
            "Limit of unlikeness": (scores[1], "1"),
        }
    assert numbers(group) == expected


def test_each_lung_has_its_area_in_cm2_where_the_pixels_have_a_size():
    source = radiograph()
    found = findings_in(source).lungs
    groups = lungs(read(source))
    for name, mask_hw in (("right lung", found.right_hw), ("left lung", found.left_hw)):
        area = mask_hw.sum() * 2.4 * 2.4 / 100
        assert numbers(groups[name])["Area"] == (pytest.approx(area, rel=1e-5), "cm2")
        share = 100 * mask_hw.mean()
        assert numbers(groups[name])["Share of the film"] == (pytest.approx(share, rel=1e-5), "%")


@pytest.mark.parametrize("name", ["no spacing", "only imager spacing"])
def test_each_lung_has_its_area_in_pixels_where_they_have_none(name):
    source = SOURCES[name]()
    group = lungs(read(source))["right lung"]
    pixels = findings_in(source).lungs.right_hw.sum()
    assert numbers(group)["Area"] == (pixels, "{pixels}")


def test_sides_are_coded_with_their_origin():
    for source, origin in (
        (radiograph(), "Stated by the source"),
        (radiograph(given(PatientOrientation="")), "Assumed"),
    ):
        groups = lungs(read(source))
        for name, side in (("right lung", "Right"), ("left lung", "Left")):
            [site] = groups[name].finding_sites
            assert site.laterality.meaning == side
            assert codes(groups[name]) == {"Origin of laterality": origin}


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (ResultKind.SEGMENTATION, "ReferencedFrameNumber"),
        (ResultKind.LABEL_MAP_SEGMENTATION, "ReferencedSegmentNumber"),
    ],
)
def test_each_lung_refers_to_its_segment_in_the_segmentation_made_with_it(kind, number):
    source = radiograph()
    made = build_segmentation(
        source, findings_in(source), CREATED, label_map=kind is not ResultKind.SEGMENTATION
    )
    groups = lungs(read(source, companions=[kind]))
    for name, expected in (("right lung", 1), ("left lung", 2)):
        [reference] = [
            item.ReferencedSOPSequence[0]
            for item in groups[name][0].ContentSequence
            if item.name.value == "121214"
        ]
        assert reference.ReferencedSOPInstanceUID == made.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == made.SOPClassUID
        assert reference[number].value == expected


def test_without_a_segmentation_each_lung_is_outlined():
    source = radiograph()
    groups = lungs(read(source, companions=[]))
    for name, mask_hw in (
        ("right lung", findings_in(source).lungs.right_hw),
        ("left lung", findings_in(source).lungs.left_hw),
    ):
        [region] = [item for item in groups[name][0].ContentSequence if item.ValueType == "SCOORD"]
        drawn_hw = filled([np.reshape(region.GraphicData, (-1, 2))], *mask_hw.shape)
        assert 2 * (drawn_hw & mask_hw).sum() / (drawn_hw.sum() + mask_hw.sum()) > 0.96


def test_its_evidence_is_the_source_and_the_objects_made_with_it():
    source = radiograph()
    findings = findings_in(source)
    segmentation = build_segmentation(source, findings, CREATED)
    film_hw = np.zeros((source.Rows, source.Columns), np.uint8)
    capture = build_secondary_capture(source, film_hw, findings, CREATED)
    evidence = read(source).get_evidence()
    expected = {
        (each.StudyInstanceUID, each.SeriesInstanceUID, each.SOPInstanceUID, each.SOPClassUID)
        for each in (source, segmentation, capture)
    }
    assert set(evidence) == expected


def test_the_superseded_report_is_its_predecessor():
    source = radiograph()
    old = build_report(source, findings_in(source), CREATED)
    model = ModelIdentity("MultiMix", "0.2.0", "cc" * 32)
    new = build_report(
        source,
        findings_in(source, model=model),
        CREATED,
        replaces_version="0.1.0",
        predecessor_version="0.1.0",
    )
    [study] = new.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == old.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in old


def test_the_algorithm_is_identified_down_to_its_weights():
    report = read(radiograph())
    for group in (assessment(report), *lungs(report).values()):
        parameters = {f"weights_sha256={MODEL.sha256}", "operating_point=0.42"}
        assert {"MultiMix", "0.1.0", *parameters} <= set(texts(group))


def test_it_says_that_it_is_for_research():
    report = read(radiograph())
    assert report.ContentQualification == "RESEARCH"
    assert any(
        "Research use only. Not for diagnosis." in text for text in texts(assessment(report))
    )


def test_a_lung_that_was_not_found_is_not_measured():
    source = radiograph()
    findings = findings_in(source)
    findings.lungs.left_hw[:] = False
    assert set(lungs(read(source, findings))) == {"right lung"}
