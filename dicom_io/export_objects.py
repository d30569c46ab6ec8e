"""The two objects that one manifest row becomes: a radiograph, and the mask drawn on it."""

import re
import textwrap
from typing import Final

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicom_io.dx_object import frontal_chest_dx
from dicom_io.errors import ArchiveError
from dicom_io.grey_picture import GreyPicture
from dicom_io.manifest import ManifestRow
from dicom_io.uids import derived_uid, dimension_organization_uid

# The pixel size of these images is unknown. Imager Pixel Spacing is required in a DX object, so a
# nominal film width is written there and said to be nominal; Pixel Spacing, from which areas and
# lengths are taken, is left out.
NOMINAL_FILM_WIDTH_MM: Final = 350.0
DERIVATION: Final = (
    "Converted from a published picture. Pixel size unknown: Imager Pixel Spacing is nominal "
    "(350 mm film width), not for measurement."
)
LONGEST_TEXT: Final = 64  # characters of a value of VR LO
OLDEST_PATIENT_YEARS: Final = 130
_PLACEHOLDER_TIMES: Final = {"DA": "20000101", "TM": "000000", "DT": "20000101000000"}


def radiograph_object(row: ManifestRow, picture: GreyPicture) -> Dataset:
    """A Digital X-Ray Image of one manifest row; what the row does not know stays empty.

    Args:
        row: what is known of the image.
        picture: its pixels; 0 is air.

    Returns:
        The object; its UIDs are derived from source and image id, so that the same row gives the
        same object.

    Raises:
        ArchiveError: the row's patient cannot be a Patient ID.
    """
    names = (row.source, row.image_id)
    spacing_mm = NOMINAL_FILM_WIDTH_MM / picture.pixels_hw.shape[1]
    dataset = frontal_chest_dx(
        picture.pixels_hw,
        bits_stored=8 * picture.pixels_hw.itemsize,
        sop_instance_uid=derived_uid("export image", *names),
        study_uid=derived_uid("export study", *names),
        series_uid=derived_uid("export series", *names),
        view=row.view,
        imager_spacing_mm=(spacing_mm, spacing_mm),
    )
    dataset.PatientID = _patient_id(row.patient)
    dataset.PatientSex = row.sex.upper() if row.sex.upper() in ("M", "F", "O") else ""
    age = _age_string(row.age)
    if age:
        dataset.PatientAge = age
    dataset.InstitutionName = _text(row.source)
    dataset.SeriesDescription = _text(f"Chest {row.view}")
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = DERIVATION
    # Film markers, dates and hospital names may be part of a published picture.
    dataset.BurnedInAnnotation = "YES"
    _add_range_and_compression(dataset, picture)
    return dataset


def mask_object(image: Dataset, mask_hw: NDArray[np.bool_]) -> Segmentation:
    """A binary SEG with one segment, both lungs, in a series of its own in the image's study.

    Args:
        image: the radiograph that the mask was drawn on.
        mask_hw: bool, (rows, columns) of the image.
    """
    name = str(image.SOPInstanceUID)
    lungs = SegmentDescription(
        segment_number=1,
        segment_label="Lungs",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
        display_color=CIELabColor.from_rgb(86, 190, 255),
    )
    segmentation = Segmentation(
        source_images=[image],
        pixel_array=mask_hw.astype(np.uint8)[None],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[lungs],
        series_instance_uid=derived_uid("export mask series", name),
        series_number=2,
        sop_instance_uid=derived_uid("export mask", name),
        instance_number=1,
        manufacturer="unknown",
        manufacturer_model_name="image folder with manifest",
        software_versions="1",
        device_serial_number="0",
        content_label="LUNGS",
        series_description="Lung mask",
    )
    segmentation.PatientOrientation = list(image.PatientOrientation)
    _make_reproducible(segmentation)
    return segmentation


def _make_reproducible(segmentation: Segmentation) -> None:
    """The time of conversion says nothing about the mask; a fixed one keeps a second run equal."""
    organization = dimension_organization_uid(segmentation.SOPInstanceUID)
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    for element in segmentation.iterall():
        if element.VR in _PLACEHOLDER_TIMES and element.value:
            element.value = _PLACEHOLDER_TIMES[element.VR]


def _add_range_and_compression(dataset: Dataset, picture: GreyPicture) -> None:
    """A window over the values that occur in a deep picture, and what a JPEG file has lost."""
    if picture.pixels_hw.itemsize == 2:
        low, high = int(picture.pixels_hw.min()), int(picture.pixels_hw.max())
        dataset.WindowCenter, dataset.WindowWidth = str((low + high + 1) / 2), str(high - low + 1)
    if picture.lossy_ratio is not None:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = f"{picture.lossy_ratio:.2f}"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"


def _patient_id(patient: str) -> str:
    """The identifier unchanged, since patients must neither merge nor split."""
    if patient != _text(patient):
        raise ArchiveError("the patient column holds no valid Patient ID (PS3.5 6.2, VR LO)")
    return patient


def _age_string(age: str) -> str:
    """Years as an AS value (PS3.5 6.2), months below two years; empty for anything else."""
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", age):
        return ""
    years = float(age)
    if years > OLDEST_PATIENT_YEARS:
        return ""
    return f"{int(years):03d}Y" if years >= 2 or years.is_integer() else f"{int(years * 12):03d}M"


def _text(value: str) -> str:
    """A value of VR LO: no backslash, no control characters, at most 64 characters."""
    clean = re.sub(r"[\\\x00-\x1f\x7f]+", " ", value).strip()
    if len(clean) <= LONGEST_TEXT:
        return clean
    return textwrap.shorten(clean, LONGEST_TEXT, placeholder="").rstrip(" ,;:(") or clean[:64]
