import re
from datetime import UTC, datetime

from dicom_io.pixels import decode, display_image
from dicom_io.result_object import encoded
from dicom_io.result_set import build_result_set
from dicom_io.uids import STORAGE_CLASSES, ResultKind, result_uid
from tests.dicom_io.sources import findings_in, radiograph

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def build(kinds):
    source = radiograph()
    film_hw = display_image(decode(source))
    return build_result_set(source, film_hw, findings_in(source), CREATED, kinds)


def test_each_kind_is_an_object_of_its_class_in_a_series_of_its_own():
    built = build(set(ResultKind))
    assert set(built) == set(ResultKind)
    for kind, result in built.items():
        assert result.SOPClassUID == STORAGE_CLASSES[kind]
    assert len({result.SeriesInstanceUID for result in built.values()}) == len(built)
    assert len({result.SeriesNumber for result in built.values()}) == len(built)
    assert {result.ContentQualification for result in built.values()} == {"RESEARCH"}


def test_report_and_secondary_capture_name_each_other_and_the_segmentation():
    built = build({ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE, ResultKind.REPORT})
    segmentation = built[ResultKind.SEGMENTATION]
    capture, report = built[ResultKind.SECONDARY_CAPTURE], built[ResultKind.REPORT]
    [image] = capture.ReferencedImageSequence
    assert image.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    [document] = capture.ReferencedInstanceSequence
    assert document.ReferencedSOPInstanceUID == report.SOPInstanceUID
    evidence = str(report.CurrentRequestedProcedureEvidenceSequence)
    assert segmentation.SOPInstanceUID in evidence
    assert capture.SOPInstanceUID in evidence


def test_nothing_is_named_that_is_not_made():
    capture = build({ResultKind.SECONDARY_CAPTURE})[ResultKind.SECONDARY_CAPTURE]
    assert "ReferencedImageSequence" not in capture
    assert "ReferencedInstanceSequence" not in capture


def test_spares_are_made_and_named_by_no_other():
    source = radiograph()
    film_hw = display_image(decode(source))
    kinds = {ResultKind.SECONDARY_CAPTURE, ResultKind.REPORT}
    spares = {ResultKind.SEGMENTATION, ResultKind.PRESENTATION_STATE}
    findings = findings_in(source)
    built = build_result_set(source, film_hw, findings, CREATED, kinds, spares=spares)
    assert set(built) == kinds | spares
    alone = build_result_set(source, film_hw, findings, CREATED, kinds)
    for kind in kinds:
        assert encoded(built[kind]) == encoded(alone[kind])


def test_each_kind_names_the_version_whose_result_of_that_kind_it_replaces():
    source = radiograph()
    replaces = {ResultKind.REPORT: "0.0.9", ResultKind.SEGMENTATION: "0.0.8"}
    built = build_result_set(
        source,
        display_image(decode(source)),
        findings_in(source),
        CREATED,
        set(ResultKind),
        replaces=replaces,
        predecessor_version="0.0.9",
    )
    for kind, result in built.items():
        said = [f"replaces {replaces[kind]}"] if kind in replaces else []
        assert re.findall(r"replaces [^ ]+", result.SeriesDescription) == said
    [study] = built[ResultKind.REPORT].PredecessorDocumentsSequence
    [document] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert document.ReferencedSOPInstanceUID == result_uid(
        source.SOPInstanceUID, "0.0.9", ResultKind.REPORT
    )
