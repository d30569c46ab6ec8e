"""The overlay picture as a DICOM Secondary Capture (PS3.3 A.8.1), which every viewer shows."""

from datetime import datetime
from typing import Final

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from dicom_io.findings import Findings
from dicom_io.overlay import draw_overlay
from dicom_io.result_object import complete, elements_of, plain_text
from dicom_io.source_attributes import image_reference, patient_orientation, source_skeleton
from dicom_io.uids import MANUFACTURER, ResultKind, result_series_uid, result_uid

BURNED_IN_VALUES: Final = ("YES", "NO")


def build_secondary_capture(
    source: Dataset,
    display_hw: NDArray[np.uint8],
    findings: Findings,
    created: datetime,
    *,
    replaces_version: str | None = None,
) -> Dataset:
    """Build the secondary capture of a reading.

    It has no pixel spacing: the legend has no place in the patient, so measuring belongs on the
    original.

    Args:
        source: the radiograph that was read.
        display_hw: uint8, (rows, columns), the film as ``pixels.display_image`` gives it.
        findings: what was found in it.
        created: when the result was made.
        replaces_version: the model version whose results these supersede, if any.

    Returns:
        A dataset with file meta information; the same for the same arguments.

    Raises:
        ValueError: film, masks and saliency are not of one size.
    """
    kind = ResultKind.SECONDARY_CAPTURE
    picture = draw_overlay(display_hw, findings, source=source, created=created)
    skeleton = source_skeleton(source)
    capture = SCImage(
        pixel_array=np.asarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=result_series_uid(
            source.StudyInstanceUID, findings.model.version, kind
        ),
        series_number=1,
        sop_instance_uid=result_uid(source.SOPInstanceUID, findings.model.version, kind),
        instance_number=1,
        manufacturer=MANUFACTURER,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    result = elements_of(capture)
    # The film is drawn as it is stored, so its orientation holds for the picture too; none is
    # stated where the source states none.
    result.PatientOrientation = patient_orientation(source)
    result.ConversionType = "WSD"
    result.BurnedInAnnotation = _burned_in_annotation(source)
    result.DerivationDescription = plain_text(
        f"Saliency and lung contours of {findings.model.name} {findings.model.version} drawn over "
        "the resampled image, legend added",
        1024,
    )
    result.DerivationCodeSequence = [CodedConcept.from_code(codes.DCM.SpatialResampling)]
    result.SourceImageSequence = [_source_image(source)]
    result.LossyImageCompression = skeleton.get("LossyImageCompression", "00")
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if keyword in skeleton:
            result[keyword] = skeleton[keyword]
    return complete(result, source, findings.model, kind, created, replaces_version)


def _burned_in_annotation(source: Dataset) -> str:
    """What the source says of its own pixels; where it says nothing, text must be expected."""
    stated = source.get("BurnedInAnnotation")
    return stated if stated in BURNED_IN_VALUES else "YES"


def _source_image(source: Dataset) -> Dataset:
    reference = image_reference(source)
    reference.SpatialLocationsPreserved = "NO"
    reference.PurposeOfReferenceCodeSequence = [
        CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    return reference
