"""Findings as a DICOM Segmentation (PS3.3 A.51): segment 1 is the right lung, segment 2 the left.

The masks lie on the source's own pixel grid, so the source's pixel spacing is theirs. It is not
stated again: pixel measures without a slice thickness, which a projection does not have, stop
readers (highdicom's always, dicom3tools within a Frame of Reference). A lung that was not found
keeps its segment, with an empty frame, so that the numbers always mean the same side.
"""

from datetime import datetime

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.sr.codedict import codes

from dicom_io.colours import LEFT_LUNG_RGB, RIGHT_LUNG_RGB
from dicom_io.findings import Findings
from dicom_io.result_object import RESEARCH_ONLY, complete, elements_of, plain_text
from dicom_io.source_attributes import patient_orientation, source_skeleton
from dicom_io.uids import (
    MANUFACTURER,
    ResultKind,
    dimension_organization_uid,
    result_series_uid,
    result_uid,
    tracking_uid,
)


def build_segmentation(
    source: Dataset,
    findings: Findings,
    created: datetime,
    *,
    label_map: bool = False,
    replaces_version: str | None = None,
) -> Dataset:
    """Build the segmentation of both lungs.

    Args:
        source: the radiograph that was read; its pixel data is not touched.
        findings: what was found in it, masks on its pixel grid.
        created: when the result was made.
        label_map: one frame of numbers (LABELMAP) instead of one frame of bits for each lung.
        replaces_version: the model version whose results these supersede, if any.

    Returns:
        A dataset with file meta information; the same for the same arguments.

    Raises:
        ValueError: the masks do not have the source's rows and columns, or overlap.
    """
    lungs = findings.lungs
    for mask_hw in (lungs.right_hw, lungs.left_hw):
        if mask_hw.shape != (source.Rows, source.Columns):
            raise ValueError(f"mask of {mask_hw.shape} for {source.Rows} x {source.Columns} pixels")
    if (lungs.right_hw & lungs.left_hw).any():
        raise ValueError("the masks of right and left lung overlap")

    kind = ResultKind.LABEL_MAP_SEGMENTATION if label_map else ResultKind.SEGMENTATION
    version = findings.model.version
    segmentation = Segmentation(
        source_images=[source_skeleton(source)],
        pixel_array=_segments(lungs.right_hw, lungs.left_hw),
        segmentation_type=(
            SegmentationTypeValues.LABELMAP if label_map else SegmentationTypeValues.BINARY
        ),
        segment_descriptions=[
            _segment(1, "right", source, findings),
            _segment(2, "left", source, findings),
        ],
        series_instance_uid=result_series_uid(source.StudyInstanceUID, version, kind),
        series_number=1,
        sop_instance_uid=result_uid(source.SOPInstanceUID, version, kind),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=plain_text(version),
        device_serial_number=findings.model.sha256[:16],
        content_label="LUNGS",
        content_description=f"Lungs by {plain_text(findings.model.name, 12)}. {RESEARCH_ONLY}",
        omit_empty_frames=False,
        specific_character_set=None,
    )
    result = elements_of(segmentation)
    _replace_random_uids(result, dimension_organization_uid(result.SOPInstanceUID))
    _pad_with_zero(result)
    result.PatientOrientation = patient_orientation(source)
    return complete(result, source, findings.model, kind, created, replaces_version)


def _segments(right_hw: NDArray[np.bool_], left_hw: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8, (1, rows, columns), the number of the segment of each pixel; 0 outside."""
    numbers_hw = right_hw.astype(np.uint8)
    numbers_hw[left_hw] = 2
    return numbers_hw[np.newaxis]


def _segment(number: int, side: str, source: Dataset, findings: Findings) -> SegmentDescription:
    model, lungs = findings.model, findings.lungs
    segment = SegmentDescription(
        segment_number=number,
        segment_label=f"{side.capitalize()} lung" + ("" if lungs.side_is_certain else " (assumed)"),
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=plain_text(model.name),
            family=codes.DCM.ArtificialIntelligence,
            version=plain_text(model.version),
            parameters={"weights_sha256": model.sha256},
        ),
        tracking_uid=tracking_uid(source.SOPInstanceUID, f"{side} lung"),
        tracking_id=f"{side} lung",
        display_color=CIELabColor.from_rgb(*(RIGHT_LUNG_RGB if side == "right" else LEFT_LUNG_RGB)),
    )
    laterality = codes.SCT.Right if side == "right" else codes.SCT.Left
    segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
        CodedConcept.from_code(laterality)
    ]
    segment.SegmentDescription = plain_text(f"Side: {lungs.side_evidence}", 1024)
    return segment


def _replace_random_uids(result: Dataset, organization_uid: str) -> None:
    """Highdicom draws the Dimension Organization UID at random; ours is derived."""

    def replace(_: Dataset, element: DataElement) -> None:
        if element.keyword == "DimensionOrganizationUID":
            element.value = organization_uid

    result.walk(replace)


def _pad_with_zero(result: Dataset) -> None:
    """Padding to even length is a zero byte (PS3.5 8.2); highdicom appends the character 0."""
    bits = result.Rows * result.Columns * result.NumberOfFrames * result.BitsAllocated
    length = (bits + 7) // 8
    result.PixelData = result.PixelData[:length] + b"\0" * (length % 2)
