"""One DICOM file of an archive export: image or lung mask by its header, report by its content."""

import re
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from dicom_io.archive_file import (
    looks_like_dicom,
    read_dataset,
    read_header,
    require_moderate_content,
    require_moderate_items,
    storage_class_of,
)
from dicom_io.archive_items import ExportedImage, ExportedMask, ExportedReport, Unreadable
from dicom_io.content_items import REPORT_CLASSES
from dicom_io.deflated import require_sane_inflation
from dicom_io.dx_object import SUPINE_CODE
from dicom_io.errors import ArchiveError, ImageRejected, MaskMismatch
from dicom_io.finding_report import read_report
from dicom_io.lung_segments import SEGMENTATION_CLASSES, lung_segments, referenced_images
from dicom_io.spacing import pixel_spacing
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES
from dicom_io.uids import MANUFACTURER_MODEL_NAME

_PLAIN_TRANSFER_SYNTAXES: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_HEADER: Final = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "Rows", "Columns",
    "InstitutionName", "Manufacturer", "ManufacturerModelName", "StationName",
    "ViewPosition",
    "PatientOrientation", "PatientOrientationCodeSequence", "PatientSex", "PatientAge",
    "PixelSpacing",
    "PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames",
    "SegmentSequence", "ReferencedSeriesSequence", "SourceImageSequence",
    "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
]  # fmt: skip


def read_object(path: Path) -> ExportedImage | ExportedMask | ExportedReport | Unreadable | None:
    """Read one file, whatever it is; its pixel data is left alone.

    Args:
        path: of the file.

    Returns:
        An image (without label, split and masks, which stand elsewhere), a mask, a report that
        says something of pneumonia, or why the file cannot be used. None for other files and other
        objects, which are no one's mistake, and for results of this node.
    """
    try:
        if not looks_like_dicom(path):
            return None
        require_sane_inflation(path)
        storage_class = storage_class_of(path)
        if storage_class in SEGMENTATION_CLASSES:
            require_moderate_items(path)
        if storage_class in REPORT_CLASSES:
            require_moderate_content(path)
            return read_report(path, read_dataset(path))
        header = read_header(path, list(_HEADER))
        if _is_left_out(header):
            return None
        return _item_of(path, header)
    except OSError as cause:
        return Unreadable(path, f"cannot be read: {cause.strerror or type(cause).__name__}")
    except (ArchiveError, ImageRejected) as problem:
        return Unreadable(path, str(problem).removeprefix(f"{path} "))
    except Exception as cause:  # noqa: BLE001 - one hostile file must not end the walk over the rest
        return Unreadable(path, f"damaged: {type(cause).__name__}")


def _is_left_out(header: Dataset) -> bool:
    """Directories, and what this node made: results go back into the archive that is exported."""
    storage_class = header.file_meta.get("MediaStorageSOPClassUID")
    return bool(
        storage_class == MediaStorageDirectoryStorage
        or header.get("ManufacturerModelName") == MANUFACTURER_MODEL_NAME
    )


def _item_of(path: Path, header: Dataset) -> ExportedImage | ExportedMask | None:
    """Sort one object: mask, image, or neither.

    Raises:
        ArchiveError: it cannot be used.
    """
    if not header.get("SOPClassUID") or not header.get("SOPInstanceUID"):
        raise ArchiveError("not a DICOM object, or one without SOP Class or SOP Instance UID")
    if header.SOPClassUID in SEGMENTATION_CLASSES:
        return _mask_of(path, header)
    if header.SOPClassUID in CHEST_STORAGE_CLASSES:
        return _image_of(path, header)
    return None


def _mask_of(path: Path, header: Dataset) -> ExportedMask:
    if not lung_segments(header):
        raise MaskMismatch("the SEG has no lung segment")
    return ExportedMask(path, referenced_images(header))


def _image_of(path: Path, header: Dataset) -> ExportedImage:
    if not header.get("Rows") or not header.get("Columns"):
        raise ArchiveError("Rows or Columns is missing")
    _require_all_of_the_pixels(path, header)
    return ExportedImage(
        path=path,
        sop_instance_uid=str(header.SOPInstanceUID),
        study_uid=str(header.get("StudyInstanceUID") or ""),
        patient=str(header.get("PatientID") or ""),
        label=None,
        split=None,
        mask_paths=(),
        rows=int(header.Rows),
        columns=int(header.Columns),
        source=str(header.get("InstitutionName") or ""),
        manufacturer=str(header.get("Manufacturer") or ""),
        station=str(header.get("StationName") or ""),
        sender=str(header.file_meta.get("SourceApplicationEntityTitle") or "").strip(),
        view=_view(header),
        sex=str(header.get("PatientSex") or ""),
        age_years=_age_years(str(header.get("PatientAge") or "")),
        pixel_spacing_mm=_pixel_spacing_mm(header),
        patient_orientation=tuple(map(str, header.get("PatientOrientation") or ())),
        photometric=str(header.get("PhotometricInterpretation") or ""),
    )


def _pixel_spacing_mm(header: Dataset) -> tuple[float, float] | None:
    """Pixel Spacing alone: Imager Pixel Spacing is that of a magnified shadow."""
    spacing = pixel_spacing(header)
    return None if spacing is None else (spacing.row_mm, spacing.column_mm)


def _require_all_of_the_pixels(path: Path, header: Dataset) -> None:
    """See a copy that broke off without reading the pixels: the file is shorter than they are."""
    transfer_syntax = header.file_meta.get("TransferSyntaxUID")
    if transfer_syntax not in _PLAIN_TRANSFER_SYNTAXES:
        return
    bits = int(header.get("BitsAllocated") or 8) * int(header.get("SamplesPerPixel") or 1)
    pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    if path.stat().st_size < pixels * bits // 8:
        raise ArchiveError("the file is shorter than its pixel data; it was truncated")


def _view(header: Dataset) -> str:
    """View Position, with "Supine" where Patient Orientation Code Sequence says so."""
    view = str(header.get("ViewPosition") or "").strip().upper()
    modifiers = (
        modifier.get("CodeValue")
        for item in header.get("PatientOrientationCodeSequence") or ()
        for modifier in item.get("PatientOrientationModifierCodeSequence") or ()
    )
    return f"{view} Supine".strip() if SUPINE_CODE in modifiers else view


def _age_years(age: str) -> float | None:
    """An AS value (PS3.5 6.2) in years."""
    match = re.fullmatch(r"(\d{3})([DWMY])", age.strip())
    if match is None:
        return None
    per_year = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
    return int(match[1]) / per_year
