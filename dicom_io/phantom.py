"""Synthetic frontal chest radiographs whose lungs and label are known exactly.

    python -m dicom_io.phantom OUT [--count 6] [--seed 0]

Drawn from absorption: body, lungs, heart, spine, ribs and clavicles are shapes with a thickness;
what reaches the detector is their sum, as in a film. Used where no real film may be.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from scipy import ndimage

from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, derived_uid

BITS_STORED: Final = 12
PIXEL_SPACING_MM: Final = 350.0

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Phantom:
    """One drawn radiograph.

    Attributes:
        seed: that it was drawn from.
        stored_hw: uint16 in [0, 4095], (rows, columns); 0 is air.
        right_lung_hw: bool, the patient's right lung, on the image's left side.
        left_lung_hw: bool, the patient's left lung, behind the heart included.
        opacity_hw: bool, where the pneumonia is; empty in a normal film.
    """

    seed: int
    stored_hw: NDArray[np.uint16]
    right_lung_hw: NDArray[np.bool_]
    left_lung_hw: NDArray[np.bool_]
    opacity_hw: NDArray[np.bool_]

    @property
    def lungs_hw(self) -> NDArray[np.bool_]:
        """Both lungs, bool, (rows, columns)."""
        return self.right_lung_hw | self.left_lung_hw

    @property
    def label(self) -> str:
        """``pneumonia`` where there is an opacity, else ``normal``."""
        return "pneumonia" if self.opacity_hw.any() else "normal"


def draw_phantom(
    seed: int, rows: int = 512, columns: int = 512, *, pneumonia: bool | None = None
) -> Phantom:
    """Draw one chest.

    Args:
        seed: decides shape, exposure, noise and, unless given, the label.
        rows: of the image.
        columns: of the image.
        pneumonia: whether one lung has an opacity; None lets the seed decide.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    y = (y + 0.5) / rows
    x = ((x + 0.5) / columns - 0.5) / random.uniform(0.94, 1.06)
    y = (y - 0.5) / random.uniform(0.95, 1.05) + 0.5 + random.uniform(-0.02, 0.02)

    right = _lung(x, y, side=-1, apex=random.uniform(0.13, 0.17), base=random.uniform(0.74, 0.78))
    left = _lung(x, y, side=1, apex=random.uniform(0.13, 0.17), base=random.uniform(0.77, 0.81))
    heart = _ellipse(x, y, 0.055, 0.62, random.uniform(0.13, 0.155), 0.16, turn=-0.5)
    has_opacity = bool(random.random() < 0.5) if pneumonia is None else pneumonia
    opacity = _opacity(x, y, random, right > 0.5, left > 0.5) if has_opacity else np.zeros_like(x)

    lungs = np.maximum(right, left)
    absorption = 1.9 * _body(x, y)
    absorption -= 1.25 * lungs
    absorption += 0.75 * heart + 0.55 * _spine(x, y) + 0.35 * _mediastinum(x, y)
    absorption += _ribs(x, y, lungs) + _clavicles(x, y)
    absorption += 0.10 * lungs * _texture(random, rows, columns)
    absorption += 0.55 * opacity * (1 + 0.25 * _texture(random, rows, columns))

    blur = 0.004 * max(rows, columns)
    film = ndimage.gaussian_filter(absorption, blur)
    film += random.normal(0, 0.025, film.shape)
    film = (film - film.min()) / (film.max() - film.min())
    stored = np.rint(film ** random.uniform(0.85, 1.15) * (2**BITS_STORED - 1))
    return Phantom(
        seed=seed,
        stored_hw=stored.astype(np.uint16),
        right_lung_hw=right > 0.5,
        left_lung_hw=left > 0.5,
        opacity_hw=opacity > 0.3,
    )


def phantom_dataset(
    phantom: Phantom,
    *,
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_instance_uid: str | None = None,
    patient_id: str = "PHANTOM",
    patient_name: str = "Phantom^Chest",
) -> Dataset:
    """A Digital X-Ray Image for presentation (PS3.3 A.26) of a phantom, uncompressed.

    Args:
        phantom: the drawing.
        study_uid: Study Instance UID; derived from the seed where left out, as are the others.
        series_uid: Series Instance UID.
        sop_instance_uid: SOP Instance UID.
        patient_id: of the invented patient.
        patient_name: of the invented patient.
    """
    name = str(phantom.seed)
    rows, columns = phantom.stored_hw.shape
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = sop_instance_uid or derived_uid("phantom image", name)
    dataset.StudyInstanceUID = study_uid or derived_uid("phantom study", name)
    dataset.SeriesInstanceUID = series_uid or derived_uid("phantom series", name)
    dataset.PatientName, dataset.PatientID = patient_name, patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260102", "101500", "1"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Chest phantom"
    dataset.Modality, dataset.Manufacturer = "DX", "Phantom"
    dataset.SeriesNumber = dataset.InstanceNumber = "1"
    dataset.ContentDate, dataset.ContentTime = "20260102", "101500"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.BodyPartExamined, dataset.ImageLaterality = "CHEST", "U"
    dataset.AnatomicRegionSequence = [_code("43799004", "Chest")]
    dataset.ViewCodeSequence = [_code("272479007", "postero-anterior")]
    dataset.ViewPosition, dataset.PatientOrientation = "PA", ["L", "F"]
    dataset.PositionerType = dataset.DetectorType = ""
    spacing = f"{PIXEL_SPACING_MM / columns:.5f}"
    dataset.PixelSpacing = dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.AcquisitionContextSequence = []
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS_STORED, BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    dataset.LossyImageCompression, dataset.BurnedInAnnotation = "00", "NO"
    dataset.PixelData = phantom.stored_hw.astype("<u2").tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    return dataset


def _code(value: str, meaning: str) -> Dataset:
    """A SNOMED CT code item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _smooth(distance: Grid, softness: float = 0.008) -> Grid:
    """1 where a signed distance is negative, 0 where it is positive, soft between."""
    return np.asarray(1 / (1 + np.exp(np.clip(distance / softness, -40, 40))))


def _ellipse(
    x: Grid, y: Grid, cx: float, cy: float, half_width: float, half_height: float, turn: float = 0.0
) -> Grid:
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
    radius = np.hypot(u / half_width, v / half_height)
    return _smooth((radius - 1) * min(half_width, half_height))


def _lung(x: Grid, y: Grid, *, side: int, apex: float, base: float) -> Grid:
    """A lung field: rounded apex, bowed chest wall, straight mediastinum, domed diaphragm."""
    across = x * side
    depth = np.clip((y - apex) / (base + 0.06 - apex), 0, 1)
    wall = 0.085 + 0.275 * np.sqrt(1 - (1 - depth) ** 2.6) - 0.035 * depth**4
    medial = 0.055 + 0.012 * np.cos(depth * np.pi)
    dome = (
        base
        - 0.055 * np.exp(-(((across - 0.17) / 0.10) ** 2))
        + 0.30 * (np.clip(across - 0.22, 0, None) ** 1.25)
    )
    top = apex + 0.7 * np.clip(np.abs(across - 0.13) - 0.02, 0, None) ** 1.5
    outside = np.maximum.reduce([across - wall, medial - across, y - dome, top - y])
    return _smooth(outside)


def _body(x: Grid, y: Grid) -> Grid:
    """Trunk, shoulders and neck."""
    trunk_half_width = 0.43 + 0.03 * np.sin(y * 3)
    trunk = _smooth(np.maximum(np.abs(x) - trunk_half_width, 0.17 - y), 0.015)
    shoulders = _ellipse(x, y, 0.0, 0.30, 0.50, 0.20)
    neck = _smooth(np.maximum(np.abs(x) - 0.10, y - 0.3), 0.015)
    thickness = (
        0.75 + 0.25 * np.sqrt(np.clip(1 - (x / 0.5) ** 2, 0, 1)) + 0.35 * _smooth(0.8 - y, 0.05)
    )
    return np.asarray(np.maximum.reduce([trunk, shoulders, 0.8 * neck]) * thickness)


def _spine(x: Grid, y: Grid) -> Grid:
    column = np.exp(-((x / 0.038) ** 4))
    return np.asarray(column * (0.75 + 0.25 * np.cos(y * 2 * np.pi * 17)) * (0.6 + 0.5 * y))


def _mediastinum(x: Grid, y: Grid) -> Grid:
    arch = _ellipse(x, y, 0.045, 0.34, 0.05, 0.06)
    column = _smooth(np.abs(x) - 0.062, 0.015) * _smooth(y - 0.9, 0.05)
    return np.asarray(np.maximum(column, arch))


def _ribs(x: Grid, y: Grid, lungs: Grid) -> Grid:
    """Nine pairs of ribs that fall away from the spine and turn back at the chest wall."""
    total = np.zeros_like(x)
    across = np.abs(x)
    cage = _smooth(across - 0.40, 0.01) * _smooth(0.03 - across, 0.01)
    for number in range(9):
        start = 0.15 + 0.068 * number
        posterior = start + 0.30 * across**1.25 - 0.02 * np.sin(across * 8)
        anterior = start + 0.19 - 0.35 * (across - 0.05)
        for line, strength in ((posterior, 0.24), (anterior, 0.08)):
            total += strength * np.exp(-(((y - line) / 0.0115) ** 4))
    return total * cage * (0.35 + 0.65 * lungs)


def _clavicles(x: Grid, y: Grid) -> Grid:
    across = np.abs(x)
    line = 0.205 - 0.22 * np.clip(across - 0.05, 0, None) + 0.25 * np.clip(across - 0.2, 0, None)
    reach = _smooth(across - 0.36, 0.01) * _smooth(0.045 - across, 0.01)
    return np.asarray(0.38 * np.exp(-(((y - line) / 0.014) ** 4)) * reach)


def _texture(random: np.random.Generator, rows: int, columns: int) -> Grid:
    """Vessel-like mottling: noise at three scales, unit variance."""
    total = np.zeros((rows, columns))
    for share in (0.006, 0.015, 0.04):
        layer = ndimage.gaussian_filter(random.normal(size=(rows, columns)), share * rows)
        total += layer / layer.std()
    return np.asarray(total / total.std())


def _opacity(
    x: Grid,
    y: Grid,
    random: np.random.Generator,
    right: NDArray[np.bool_],
    left: NDArray[np.bool_],
) -> Grid:
    """A soft consolidation in the lower or middle part of one lung."""
    lung = right if random.random() < 0.5 else left
    side = -1 if lung is right else 1
    cx, cy = side * random.uniform(0.15, 0.24), random.uniform(0.45, 0.68)
    radius = np.hypot((x - cx) / random.uniform(0.07, 0.12), (y - cy) / random.uniform(0.07, 0.13))
    return np.asarray(np.exp(-(radius**2) / 1.2) * ndimage.gaussian_filter(lung.astype(float), 2))


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the DICOM files.")],
    count: Annotated[int, typer.Option(help="How many phantoms.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the first one.")] = 0,
) -> None:
    """Draw synthetic chest radiographs as DICOM files."""
    out.mkdir(parents=True, exist_ok=True)
    for number in range(seed, seed + count):
        phantom = draw_phantom(number, pneumonia=bool(number % 2))
        path = out / f"phantom-{number}-{phantom.label}.dcm"
        phantom_dataset(phantom).save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    typer.run(main)
