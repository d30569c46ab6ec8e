"""Structured reports of other producers: by highdicom, and content trees written by hand."""

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from highdicom.sr import (
    FindingSite,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian, generate_uid

PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
NORMAL = Code("17621005", "SCT", "Normal")
FINDING = Code("121071", "DCM", "Finding")
FINDINGS = Code("121070", "DCM", "Findings")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
PRESENCE = Code("705057003", "SCT", "Presence")
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("2667000", "SCT", "Absent")
UNDETERMINED = Code("373068000", "SCT", "Undetermined")
LUNG = Code("39607008", "SCT", "Lung")
HEART = Code("80891009", "SCT", "Heart")
RIGHT = Code("24028007", "SCT", "Right")


def measurement_report(
    film: Dataset,
    finding: Code = PNEUMONIA,
    evaluations: Sequence[tuple[Code, Code]] = (),
    *,
    sites: Sequence[FindingSite] = (),
    writer: Any = hd.sr.ComprehensiveSR,
    names_its_image: bool = True,
    predecessors: Sequence[Dataset] = (),
) -> Dataset:
    """A TID 1500 report with one measurement group, as highdicom writes it for a radiologist."""
    source = SourceImageForMeasurementGroup(film.SOPClassUID, film.SOPInstanceUID)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=hd.UID(), identifier="finding"),
        finding_type=finding,
        finding_sites=list(sites) or None,
        qualitative_evaluations=[QualitativeEvaluation(*pair) for pair in evaluations] or None,
        source_images=[source] if names_its_image else None,
    )
    observer = ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=PersonObserverIdentifyingAttributes(name="Reader^A"),
    )
    content = MeasurementReport(
        observation_context=ObservationContext(observer_person_context=observer),
        procedure_reported=Code("399208008", "SCT", "Plain X-ray of chest"),
        imaging_measurements=[group],
    )
    return writer(  # type: ignore[no-any-return]
        evidence=[film],
        content=content[0],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Other vendor",
        is_complete=True,
        is_final=True,
        previous_versions=list(predecessors) or None,
    )


def plain_report(
    film: Dataset, *items: Dataset, names_its_image: bool = True, **attributes: object
) -> Dataset:
    """An Enhanced SR with a content tree written by hand, outside of any template."""
    report = container(Code("18748-4", "LN", "Diagnostic imaging report"), *items)
    del report.RelationshipType
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = EnhancedSRStorage
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    report.StudyInstanceUID, report.SeriesInstanceUID = film.StudyInstanceUID, generate_uid()
    report.PatientID, report.Modality = film.PatientID, "SR"
    if names_its_image:
        report.CurrentRequestedProcedureEvidenceSequence = [evidence_of(film)]
    for keyword, value in attributes.items():
        setattr(report, keyword, value)
    return report


def evidence_of(instance: Dataset) -> Dataset:
    """An item of hierarchical references that names one instance."""
    study, series = Dataset(), Dataset()
    study.StudyInstanceUID, series.SeriesInstanceUID = instance.StudyInstanceUID, "1.2.3"
    series.ReferencedSOPSequence = [_reference(instance)]
    study.ReferencedSeriesSequence = [series]
    return study


def container(name: Code, *items: Dataset) -> Dataset:
    """A CONTAINER content item."""
    item = _item("CONTAINER", name, items)
    item.ContinuityOfContent = "SEPARATE"
    return item


def coded(name: Code, value: Code, *items: Dataset) -> Dataset:
    """A CODE content item."""
    item = _item("CODE", name, items)
    item.ConceptCodeSequence = [_code(value)]
    return item


def text(name: Code, value: str) -> Dataset:
    """A TEXT content item."""
    item = _item("TEXT", name, ())
    item.TextValue = value
    return item


def image(instance: Dataset) -> Dataset:
    """An IMAGE content item."""
    item = _item("IMAGE", Code("121112", "DCM", "Source of Measurement"), ())
    item.ReferencedSOPSequence = [_reference(instance)]
    return item


def _item(value_type: str, name: Code, items: Sequence[Dataset]) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", value_type
    item.ConceptNameCodeSequence = [_code(name)]
    if items:
        item.ContentSequence = list(items)
    return item


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _reference(instance: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = instance.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return item
