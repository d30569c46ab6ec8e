"""Turn an image folder with a manifest into an archive export: DX objects, SEG masks, labels.

One folder a study, UIDs derived from the manifest, so that a second run writes the same objects.
"""

import csv
import os
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from dicom_io.errors import ArchiveError
from dicom_io.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derived_uid,
    dimension_organization_uid,
)

REQUIRED_COLUMNS: Final = ("id", "image", "lung_mask", "label", "patient", "split")
LABELS: Final = ("normal", "pneumonia")
# The pixel size of these images is unknown. Imager Pixel Spacing is required in a DX object, so a
# nominal film width is written there and said to be nominal; Pixel Spacing, from which areas and
# lengths are taken, is left out.
NOMINAL_FILM_WIDTH_MM: Final = 350.0
DERIVATION: Final = (
    "Converted from a published 8-bit image. Pixel size unknown: Imager Pixel Spacing is nominal "
    "(350 mm film width), not for measurement."
)
MANIFEST_NAME: Final = "manifest.csv"
_PLACEHOLDER_TIMES: Final = {"DA": "20000101", "TM": "000000", "DT": "20000101000000"}


@dataclass(frozen=True)
class ManifestRow:
    """One image of a manifest.

    Attributes:
        image_id: unique within its source.
        image: path of the image file.
        lung_mask: path of its mask, or None.
        label: ``normal``, ``pneumonia`` or empty.
        split: as the manifest says; may be empty.
        patient: identifier that groups images of one person.
        view: ``PA``, ``AP``, ``AP Supine`` or empty.
        sex: ``M``, ``F`` or empty.
        age: in years where it is a number, else kept out of the object.
        source: the institution or data set.
        licence: of the image.
    """

    image_id: str
    image: Path
    lung_mask: Path | None
    label: str
    split: str
    patient: str
    view: str
    sex: str
    age: str
    source: str
    licence: str


@dataclass(frozen=True)
class Created:
    """What a run of ``create_export`` wrote.

    Attributes:
        images: number of DX objects.
        masks: number of SEG objects.
        problems: (image id, reason) of each row that could not be used in full.
    """

    images: int
    masks: int
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Written:
    sop_instance_uid: str | None
    has_mask: bool
    problem: str


def read_manifest(folder_or_manifest: Path) -> list[ManifestRow]:
    """Read ``manifest.csv``; paths in it are relative to its folder.

    Raises:
        ArchiveError: it is missing, or a required column is.
    """
    path = folder_or_manifest
    if path.is_dir():
        path = path / MANIFEST_NAME
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in REQUIRED_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ArchiveError(f"{path} lacks the columns {', '.join(missing)}")
            return [_row(record, path.parent) for record in reader]
    except OSError as cause:
        raise ArchiveError(f"{path} cannot be read: {cause.strerror}") from cause


def _row(record: dict[str, str], folder: Path) -> ManifestRow:
    mask = record["lung_mask"].strip()
    return ManifestRow(
        image_id=record["id"],
        image=folder / record["image"],
        lung_mask=folder / mask if mask else None,
        label=record["label"].strip().lower(),
        split=record["split"].strip(),
        patient=record["patient"].strip(),
        view=(record.get("view") or "").strip(),
        sex=(record.get("sex") or "").strip(),
        age=(record.get("age") or "").strip(),
        source=(record.get("source") or "").strip(),
        licence=(record.get("licence") or "").strip(),
    )


def create_export(
    rows: list[ManifestRow], out: Path, jobs: int | None = None
) -> Generator[int, None, Created]:
    """Write an export, giving the number of rows done so far; ``labels.csv`` comes last.

    Args:
        rows: of a manifest.
        out: folder of the export; existing files of the same objects are replaced.
        jobs: processes; None for one for each core.

    Returns:
        An iterator over the progress whose value (``StopIteration.value``) is a ``Created``.
    """
    out.mkdir(parents=True, exist_ok=True)
    written: list[_Written] = []
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        for result in pool.map(_write_row, rows, [out] * len(rows), chunksize=8):
            written.append(result)
            yield len(written)
    both = [(row, result) for row, result in zip(rows, written, strict=True)]
    _write_tables(out, [(row, r.sop_instance_uid) for row, r in both if r.sop_instance_uid])
    return Created(
        images=sum(result.sop_instance_uid is not None for result in written),
        masks=sum(result.has_mask for result in written),
        problems=tuple((row.image_id, result.problem) for row, result in both if result.problem),
    )


def _write_tables(out: Path, rows: list[tuple[ManifestRow, str]]) -> None:
    """``labels.csv`` for programs, ``attribution.csv`` for whoever must name sources."""
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("SOPInstanceUID", "label", "split"))
        writer.writerows((uid, row.label, row.split) for row, uid in rows)
    with (out / "attribution.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("SOPInstanceUID", "image", "source", "licence"))
        writer.writerows((uid, row.image_id, row.source, row.licence) for row, uid in rows)


def _write_row(row: ManifestRow, out: Path) -> _Written:
    """Write one image and its mask; a broken file becomes a problem, never an exception."""
    if row.label not in ("", *LABELS):
        return _Written(None, False, f"unknown label {row.label!r}")
    try:
        pixels_hw = _grey(row.image)
    except (OSError, UnidentifiedImageError, ValueError) as cause:
        return _Written(None, False, f"{row.image.name}: {type(cause).__name__}")
    image = radiograph_object(row, pixels_hw)
    folder = out / f"study-{image.StudyInstanceUID.rpartition('.')[2]}"
    folder.mkdir(exist_ok=True)
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    if row.lung_mask is None:
        return _Written(str(image.SOPInstanceUID), False, "")
    try:
        mask_hw = _grey(row.lung_mask) > 127
    except (OSError, UnidentifiedImageError, ValueError) as cause:
        problem = f"{row.lung_mask.name}: {type(cause).__name__}"
        return _Written(str(image.SOPInstanceUID), False, problem)
    if mask_hw.shape != pixels_hw.shape:
        problem = f"mask of {mask_hw.shape}, image of {pixels_hw.shape}"
        return _Written(str(image.SOPInstanceUID), False, problem)
    mask_object(image, mask_hw).save_as(folder / "lungs.dcm", enforce_file_format=True)
    return _Written(str(image.SOPInstanceUID), True, "")


def _grey(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), dtype=np.uint8)


def radiograph_object(row: ManifestRow, pixels_hw: NDArray[np.uint8]) -> Dataset:
    """A Digital X-Ray Image for presentation (PS3.3 A.26) of one manifest row.

    Args:
        row: what is known of the image.
        pixels_hw: uint8, (rows, columns); 0 is air.
    """
    names = (row.source, row.image_id)
    dataset = Dataset()
    dataset.file_meta = _file_meta(derived_uid("export image", *names))
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = derived_uid("export study", *names)
    dataset.SeriesInstanceUID = derived_uid("export series", *names)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    _add_patient_and_study(dataset, row)
    _add_acquisition(dataset, row, pixels_hw.shape[1])
    _add_pixels(dataset, pixels_hw)
    return dataset


def _file_meta(sop_instance_uid: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _add_patient_and_study(dataset: Dataset, row: ManifestRow) -> None:
    dataset.PatientName = ""
    dataset.PatientID = row.patient
    dataset.PatientBirthDate = ""
    dataset.PatientSex = row.sex if row.sex in ("M", "F", "O") else ""
    if row.age.isdigit() and int(row.age) <= 120:
        dataset.PatientAge = f"{int(row.age):03d}Y"
    dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.StudyID = dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = ""
    dataset.InstitutionName = row.source[:64]
    dataset.Modality = "DX"
    dataset.SeriesNumber = dataset.InstanceNumber = "1"
    dataset.SeriesDescription = f"Chest {row.view}".strip()


def _add_acquisition(dataset: Dataset, row: ManifestRow, columns: int) -> None:
    """DX series, anatomy, positioning and detector modules, as far as the manifest knows."""
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.BodyPartExamined = "CHEST"
    dataset.AnatomicRegionSequence = [_code("43799004", "Chest")]
    dataset.ImageLaterality = "U"
    dataset.ViewPosition = row.view.partition(" ")[0] if row.view else ""
    dataset.PatientOrientation = ["L", "F"]
    if row.view.lower().endswith("supine"):
        recumbent = _code("102538003", "recumbent")
        recumbent.PatientOrientationModifierCodeSequence = [_code("40199007", "supine")]
        dataset.PatientOrientationCodeSequence = [recumbent]
    if dataset.ViewPosition in ("PA", "AP"):
        value, meaning = {
            "PA": ("272479007", "postero-anterior"),
            "AP": ("399348003", "antero-posterior"),
        }[dataset.ViewPosition]
        view = _code(value, meaning)
        view.ViewModifierCodeSequence = []
        dataset.ViewCodeSequence = [view]
    dataset.PositionerType = ""
    dataset.DetectorType = ""
    spacing = f"{NOMINAL_FILM_WIDTH_MM / columns:.5f}"
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.AcquisitionContextSequence = []


def _add_pixels(dataset: Dataset, pixels_hw: NDArray[np.uint8]) -> None:
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = DERIVATION
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels_hw.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = "128", "256"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = "10"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"
    # Film markers, dates and hospital names may be part of the published picture.
    dataset.BurnedInAnnotation = "YES"
    data = pixels_hw.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)


def _code(value: str, meaning: str) -> Dataset:
    """A SNOMED CT code item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return item


def mask_object(image: Dataset, mask_hw: NDArray[np.bool_]) -> Segmentation:
    """A binary SEG with one segment, both lungs, that references the image it was drawn on."""
    name = str(image.SOPInstanceUID)
    lungs = SegmentDescription(
        segment_number=1,
        segment_label="Lungs",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
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
    organization = dimension_organization_uid(segmentation.SOPInstanceUID)
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    # The time of conversion says nothing about the mask; a fixed one makes a second run's file equal.
    for element in segmentation.iterall():
        if element.VR in _PLACEHOLDER_TIMES and element.value:
            element.value = _PLACEHOLDER_TIMES[element.VR]
    return segmentation
