"""A reading as a structured report: Imaging Measurement Report, TID 1500 of PS3.16.

It says whether pneumonia is present, with what probability at which operating point, and how large
each lung is, and refers to the image, to the segmentation and to the other objects of the result.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
)
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io import report_codes as concept
from dicom_io.contours import outlines
from dicom_io.findings import Findings, ModelIdentity, Verdict
from dicom_io.result_object import RESEARCH_ONLY, complete, elements_of, plain_text
from dicom_io.source_attributes import patient_orientation, procedure_code, source_skeleton
from dicom_io.spacing import lung_area_cm2, lung_area_percent, pixel_spacing, spacing_of
from dicom_io.uids import (
    MANUFACTURER,
    MANUFACTURER_MODEL_NAME,
    STORAGE_CLASSES,
    ResultKind,
    derived_uid,
    result_series_uid,
    result_uid,
    tracking_uid,
)

SEGMENTATION_KINDS: Final = (ResultKind.SEGMENTATION, ResultKind.LABEL_MAP_SEGMENTATION)
REGION_TOLERANCE_PIXELS: Final = 1.0


def build_report(
    source: Dataset,
    findings: Findings,
    created: datetime,
    *,
    companions: Collection[ResultKind] = (ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE),
    replaces_version: str | None = None,
    predecessor_version: str | None = None,
) -> Dataset:
    """Build the structured report of a reading.

    Args:
        source: the radiograph that was read.
        findings: what was found in it.
        created: when the result was made.
        companions: the kinds of object that are made along with the report; they are its evidence.
            With a segmentation among them each lung is its segment, else an outline.
        replaces_version: the model version whose reports of the study these supersede, if any.
        predecessor_version: the model version whose report of this very film is superseded and
            named as predecessor document (PS3.3 C.17.2), if any.

    Returns:
        A dataset with file meta information; the same for the same arguments.
    """
    version = findings.model.version
    previous = [] if predecessor_version is None else [_result(source, predecessor_version, _KIND)]
    report = ComprehensiveSR(
        evidence=[
            source_skeleton(source),
            *(_result(source, version, kind) for kind in sorted(companions, key=_by_value)),
        ],
        content=_content(source, findings, companions),
        series_instance_uid=result_series_uid(source.StudyInstanceUID, version, _KIND),
        series_number=1,
        sop_instance_uid=result_uid(source.SOPInstanceUID, version, _KIND),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=previous or None,
        specific_character_set=None,
    )
    result = elements_of(report)
    result.CodingSchemeIdentificationSequence = [concept.private_scheme()]
    return complete(result, source, findings.model, _KIND, created, replaces_version)


_KIND: Final = ResultKind.REPORT


def _by_value(kind: ResultKind) -> str:
    return kind.value


def _result(source: Dataset, version: str, kind: ResultKind) -> Dataset:
    """Identity of a result of this source, derived and not looked up."""
    reference = Dataset()
    reference.StudyInstanceUID = source.StudyInstanceUID
    reference.SeriesInstanceUID = result_series_uid(source.StudyInstanceUID, version, kind)
    reference.SOPClassUID = STORAGE_CLASSES[kind]
    reference.SOPInstanceUID = result_uid(source.SOPInstanceUID, version, kind)
    return reference


def _content(
    source: Dataset, findings: Findings, companions: Collection[ResultKind]
) -> MeasurementReport:
    lungs = findings.lungs
    groups: list[
        MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
    ] = [_pneumonia(source, findings)]
    for number, side, laterality, mask_hw in (
        (1, "right lung", concept.RIGHT, lungs.right_hw),
        (2, "left lung", concept.LEFT, lungs.left_hw),
    ):
        if mask_hw.any():
            where = _where(source, findings.model, number, mask_hw, companions)
            groups.append(_lung(source, findings, side, laterality, mask_hw, where))
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(findings.model)),
        procedure_reported=procedure_code(source) or concept.PLAIN_CHEST_RADIOGRAPH,
        imaging_measurements=groups,
        referenced_images=_library_images(source),
    )


def _observer(model: ModelIdentity) -> ObserverContext:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", model.name, model.version, model.sha256),
            name=plain_text(model.name),
            manufacturer_name=MANUFACTURER,
            model_name=MANUFACTURER_MODEL_NAME,
            serial_number=model.sha256[:16],
        ),
    )


def _algorithm(findings: Findings) -> AlgorithmIdentification:
    model = findings.model
    return AlgorithmIdentification(
        name=plain_text(model.name),
        version=plain_text(model.version),
        family=concept.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
        parameters=[
            f"weights_sha256={model.sha256}",
            f"operating_point={findings.operating_point:.6g}",
        ],
    )


def _pneumonia(source: Dataset, findings: Findings) -> MeasurementsAndQualitativeEvaluations:
    """The group on the whole image (TID 1501)."""
    measurements = [
        _number(concept.CERTAINTY_OF_FINDING, 100 * findings.probability, concept.PERCENT),
        _number(concept.OPERATING_POINT, 100 * findings.operating_point, concept.PERCENT),
    ]
    for name, score in (
        (concept.UNLIKENESS, findings.gate_score),
        (concept.UNLIKENESS_LIMIT, findings.gate_threshold),
    ):
        if score is not None:
            measurements.append(_number(name, score, concept.NO_UNITS))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(source.SOPInstanceUID, "pneumonia"), identifier="pneumonia"
        ),
        finding_type=concept.PNEUMONIA,
        algorithm_id=_algorithm(findings),
        measurements=measurements,
        qualitative_evaluations=[QualitativeEvaluation(concept.PRESENCE, _presence(findings))],
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=source.SOPClassUID,
                referenced_sop_instance_uid=source.SOPInstanceUID,
            )
        ],
    )
    group[0].ContentSequence.append(
        TextContentItem(
            name=concept.COMMENT,
            value=f"{RESEARCH_ONLY} The certainty is a calibrated probability: the share of films "
            "with this value, like those it was calibrated on, that are expected to show "
            "pneumonia.",
            relationship_type="CONTAINS",
        )
    )
    return group


def _presence(findings: Findings) -> Code:
    """Indeterminate where the image is too unlike the training images to be judged."""
    score, limit = findings.gate_score, findings.gate_threshold
    if score is not None and limit is not None and score > limit:
        return concept.INDETERMINATE
    return concept.PRESENT if findings.verdict is Verdict.PNEUMONIA else concept.ABSENT


def _lung(
    source: Dataset,
    findings: Findings,
    side: str,
    laterality: Code,
    mask_hw: NDArray[np.bool_],
    where: ReferencedSegmentationFrame | ImageRegion,
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """The group on one lung (TID 1410)."""
    certain = findings.lungs.side_is_certain
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(source.SOPInstanceUID, side), identifier=side
        ),
        referenced_segment=where if isinstance(where, ReferencedSegmentationFrame) else None,
        referenced_region=where if isinstance(where, ImageRegion) else None,
        finding_type=concept.LUNG,
        finding_sites=[FindingSite(anatomic_location=concept.LUNG, laterality=laterality)],
        algorithm_id=_algorithm(findings),
        measurements=[
            _area(source, mask_hw),
            _number(concept.SHARE_OF_FILM, lung_area_percent(mask_hw), concept.PERCENT),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(
                concept.LATERALITY_ORIGIN,
                concept.LATERALITY_STATED if certain else concept.LATERALITY_ASSUMED,
            )
        ],
    )


def _area(source: Dataset, mask_hw: NDArray[np.bool_]) -> Measurement:
    """The area in cm2 with the plane it holds in, or in pixels where there is no spacing."""
    area, spacing = lung_area_cm2(mask_hw, source), pixel_spacing(source)
    if area is None or spacing is None:
        return _number(concept.AREA, float(np.count_nonzero(mask_hw)), concept.PIXELS)
    method = concept.SPACING_METHOD[spacing.plane]
    return _number(concept.AREA, area, concept.SQUARE_CENTIMETRE, method)


def _where(
    source: Dataset,
    model: ModelIdentity,
    number: int,
    mask_hw: NDArray[np.bool_],
    companions: Collection[ResultKind],
) -> ReferencedSegmentationFrame | ImageRegion:
    """The lung's segment if a segmentation is made along with the report, else its outline."""
    for kind in SEGMENTATION_KINDS:
        if kind in companions:
            reference = ReferencedSegmentationFrame(
                sop_class_uid=STORAGE_CLASSES[kind],
                sop_instance_uid=result_uid(source.SOPInstanceUID, model.version, kind),
                frame_number=number if kind is ResultKind.SEGMENTATION else 1,
                segment_number=number,
                source_image=SourceImageForSegmentation(
                    referenced_sop_class_uid=source.SOPClassUID,
                    referenced_sop_instance_uid=source.SOPInstanceUID,
                ),
            )
            # One of the two numbers says it all, and only one may stand there (PS3.3 C.18.4.1.1).
            superfluous = "Segment" if kind is ResultKind.SEGMENTATION else "Frame"
            del reference[0].ReferencedSOPSequence[0][f"Referenced{superfluous}Number"]
            return reference
    return ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=outlines(mask_hw, REGION_TOLERANCE_PIXELS)[0],
        source_image=SourceImageForRegion(
            referenced_sop_class_uid=source.SOPClassUID,
            referenced_sop_instance_uid=source.SOPInstanceUID,
        ),
    )


def _number(name: Code, value: float, unit: Code, method: Code | None = None) -> Measurement:
    # Six digits say more than the network knows, and fit a decimal string in every notation.
    return Measurement(name=name, value=float(f"{value:.6g}"), unit=unit, method=method)


def _library_images(source: Dataset) -> list[Dataset] | None:
    """The source for the image library, if it has what the library must say of a radiograph."""
    image = source_skeleton(source)
    image.PatientOrientation = patient_orientation(source)
    spacing = spacing_of(source, "ImagerPixelSpacing")
    if image.Modality not in ("CR", "DX") or not image.PatientOrientation or spacing is None:
        return None
    image.ImagerPixelSpacing = [float(f"{value:.6g}") for value in spacing]
    return [image]
