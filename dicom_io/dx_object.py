"""A frontal chest radiograph as a Digital X-Ray Image object (PS3.3 A.26), for presentation.

What every such object must hold; who makes one fills in the patient and what else is known.
"""

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

SUPINE_CODE: Final = "40199007"  # SNOMED CT, in Patient Orientation Modifier Code Sequence
_VIEW_CODES: Final = {
    "PA": ("272479007", "postero-anterior"),
    "AP": ("399348003", "antero-posterior"),
}


def frontal_chest_dx(
    pixels_hw: NDArray[np.uint8] | NDArray[np.uint16],
    *,
    bits_stored: int,
    sop_instance_uid: UID,
    study_uid: UID,
    series_uid: UID,
    view: str,
    imager_spacing_mm: tuple[float, float],
) -> Dataset:
    """An object with every attribute of type 1 and 2, the patient's and the study's empty.

    Args:
        pixels_hw: stored values, (rows, columns), below 2 ** bits_stored; 0 is air. Rows run to
            the patient's left, columns to the feet.
        bits_stored: 8 for uint8, up to 16 for uint16.
        sop_instance_uid: of the object.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        view: ``PA``, ``AP``, ``AP Supine`` or empty where it is not known.
        imager_spacing_mm: row and column spacing at the detector.

    Returns:
        The object with file meta information, Explicit VR Little Endian.
    """
    dataset = Dataset()
    dataset.file_meta = _file_meta(sop_instance_uid)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series_uid
    _add_empty_patient_and_study(dataset)
    _add_chest(dataset, view)
    dataset.ImagerPixelSpacing = [f"{spacing:.5f}" for spacing in imager_spacing_mm]
    _add_pixels(dataset, pixels_hw, bits_stored)
    return dataset


def _file_meta(sop_instance_uid: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _add_empty_patient_and_study(dataset: Dataset) -> None:
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
        "StudyID", "AccessionNumber", "ReferringPhysicianName", "Manufacturer",
    ):  # fmt: skip
        setattr(dataset, keyword, "")
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.SeriesNumber = dataset.InstanceNumber = "1"


def _add_chest(dataset: Dataset, view: str) -> None:
    """DX Anatomy Imaged (C.8.11.2), Positioning (C.8.11.5) and Detector (C.8.11.4) modules."""
    dataset.BodyPartExamined = "CHEST"
    dataset.AnatomicRegionSequence = [_code("43799004", "Chest")]
    dataset.ImageLaterality = "U"
    dataset.PatientOrientation = ["L", "F"]
    dataset.PositionerType = dataset.DetectorType = ""
    dataset.AcquisitionContextSequence = []
    position, _, posture = view.upper().partition(" ")
    dataset.ViewPosition = position if re.fullmatch(r"[A-Z0-9_]{0,16}", position) else ""
    if posture == "SUPINE":
        recumbent = _code("102538003", "recumbent")
        recumbent.PatientOrientationModifierCodeSequence = [_code(SUPINE_CODE, "supine")]
        dataset.PatientOrientationCodeSequence = [recumbent]
    if dataset.ViewPosition in _VIEW_CODES:
        view_code = _code(*_VIEW_CODES[dataset.ViewPosition])
        view_code.ViewModifierCodeSequence = []
        dataset.ViewCodeSequence = [view_code]


def _add_pixels(
    dataset: Dataset, pixels_hw: NDArray[np.uint8] | NDArray[np.uint16], bits_stored: int
) -> None:
    """DX Image (C.8.11.3) and VOI LUT modules; lossless and without annotation until said so."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels_hw.shape
    dataset.BitsAllocated = 8 * pixels_hw.itemsize
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PixelRepresentation = 0
    # Bright is dense: higher values mean less X-ray intensity.
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = str(2 ** (bits_stored - 1)), str(2**bits_stored)
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO"
    content = pixels_hw.astype(pixels_hw.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)


def _code(value: str, meaning: str) -> Dataset:
    """A SNOMED CT code item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return item
