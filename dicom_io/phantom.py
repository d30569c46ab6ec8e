"""Synthetic frontal chest radiographs whose lungs and label are known exactly.

    python -m dicom_io.phantom OUT [--count 6] [--seed 0]

Body, lungs, heart, vessels and bones absorb (``phantom_anatomy``); what reaches the detector is
their sum, as in a film. Used where no real film may be.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from scipy import ndimage

from dicom_io import phantom_anatomy as anatomy
from dicom_io.dx_object import frontal_chest_dx
from dicom_io.phantom_anatomy import Grid
from dicom_io.pixels import resize
from dicom_io.uids import derived_uid

BITS_STORED: Final = 12
FILM_WIDTH_MM: Final = 350.0
# Below this share of full consolidation a reader would see nothing.
VISIBLE_OPACITY: Final = 0.3
# Larger films are drawn at this size and enlarged; their grain is their own.
DRAWING_SIDE: Final = 768


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
    shrink = min(1.0, DRAWING_SIDE / max(rows, columns))
    chest = anatomy.draw_habitus(random, round(rows * shrink), round(columns * shrink))
    outside_right, outside_left = anatomy.lung_distance(chest, -1), anatomy.lung_distance(chest, 1)
    opacity = np.zeros_like(chest.x)
    if random.random() < 0.5 if pneumonia is None else pneumonia:
        side = int(random.choice((-1, 1)))
        opacity = anatomy.consolidation(
            chest, random, (outside_right if side < 0 else outside_left) < 0, side
        )
    absorption = _absorption(chest, random, np.minimum(outside_right, outside_left), opacity)
    right_hw = resize(outside_right, rows, columns) < 0
    left_hw = resize(outside_left, rows, columns) < 0
    return Phantom(
        seed=seed,
        stored_hw=_exposed(resize(absorption, rows, columns), random),
        right_lung_hw=right_hw,
        left_lung_hw=left_hw,
        opacity_hw=(resize(opacity, rows, columns) > VISIBLE_OPACITY) & (right_hw | left_hw),
    )


def _absorption(
    chest: anatomy.Habitus, random: np.random.Generator, outside_lungs: Grid, opacity: Grid
) -> Grid:
    """Everything that an X-ray meets on its way, added up."""
    air = anatomy.inside(outside_lungs, 0.003)
    airiness = random.uniform(0.58, 0.68) * (1 - 0.8 * opacity)
    tissue = anatomy.trunk(chest) * (1 - airiness * air)
    lung_detail = air * (1 - 0.7 * opacity) * anatomy.vessels(chest, random)
    lung_detail += 0.008 * air * anatomy.mottling(random, air.shape, 0.012)
    lung_detail += 0.012 * opacity * anatomy.mottling(random, air.shape, 0.05)
    bones = anatomy.ribs(chest) + anatomy.spine(chest) + anatomy.shoulder_girdle(chest)
    soft_parts = anatomy.heart(chest) * (0.35 + 0.65 * air)
    uneven = 0.025 * anatomy.mottling(random, air.shape, 0.4)
    return np.asarray(tissue + lung_detail + bones + soft_parts + uneven * (tissue > 0.05))


def _exposed(absorption: Grid, random: np.random.Generator) -> NDArray[np.uint16]:
    """Stored values: dense parts saturate as on film, the detector adds its grain."""
    grey = 1 - np.exp(-random.uniform(1.5, 2.0) * np.clip(absorption, 0, None))
    grey = ndimage.gaussian_filter(grey, 0.0009 * grey.shape[0])
    grey += 0.006 * random.standard_normal(grey.shape, dtype=np.float32)
    low, high = np.percentile(grey[:: 1 + grey.shape[0] // DRAWING_SIDE], (0.1, 99.9))
    unit = np.clip((grey - low) / (high - low), 0, 1)
    return np.asarray(np.rint(unit * (2**BITS_STORED - 1)), dtype=np.uint16)


def phantom_dataset(
    phantom: Phantom,
    *,
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_instance_uid: str | None = None,
    patient_id: str = "PHANTOM",
    patient_name: str = "Phantom^Chest",
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2",
    bits_stored: int = BITS_STORED,
    pixel_spacing_mm: tuple[float, float] | None = None,
    transfer_syntax: UID = ExplicitVRLittleEndian,
) -> Dataset:
    """A Digital X-Ray Image for presentation (PS3.3 A.26) of a phantom.

    Args:
        phantom: the drawing.
        study_uid: Study Instance UID; derived from the seed where left out, as are the others.
        series_uid: Series Instance UID.
        sop_instance_uid: SOP Instance UID.
        patient_id: of the invented patient.
        patient_name: of the invented patient.
        photometric: Photometric Interpretation; MONOCHROME1 stores the inverted film.
        bits_stored: depth of the stored values, 8 to 16.
        pixel_spacing_mm: row and column spacing; as on a film of 350 mm width where left out.
        transfer_syntax: a little endian one, uncompressed or one that pydicom can encode.

    Returns:
        The object with file meta information.
    """
    name = str(phantom.seed)
    spacing_mm = pixel_spacing_mm or (FILM_WIDTH_MM / phantom.stored_hw.shape[1],) * 2
    dataset = frontal_chest_dx(
        _at_depth(phantom.stored_hw, bits_stored, inverted=photometric == "MONOCHROME1"),
        bits_stored=bits_stored,
        sop_instance_uid=UID(sop_instance_uid or derived_uid("phantom image", name)),
        study_uid=UID(study_uid or derived_uid("phantom study", name)),
        series_uid=UID(series_uid or derived_uid("phantom series", name)),
        view="PA",
        imager_spacing_mm=spacing_mm,
    )
    dataset.PixelSpacing = dataset.ImagerPixelSpacing
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = patient_name, patient_id, "O"
    dataset.StudyDate = dataset.ContentDate = "20260102"
    dataset.StudyTime = dataset.ContentTime = "101500"
    dataset.StudyID, dataset.StudyDescription = "1", "Chest phantom"
    dataset.Manufacturer = "Phantom"
    if photometric == "MONOCHROME1":
        dataset.PhotometricInterpretation, dataset.PresentationLUTShape = photometric, "INVERSE"
        dataset.PixelIntensityRelationshipSign = 1
    if transfer_syntax.is_encapsulated:
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    return dataset


def _at_depth(
    stored_hw: NDArray[np.uint16], bits_stored: int, *, inverted: bool
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Scale the drawing's values to another depth."""
    largest = 2**bits_stored - 1
    values_hw = stored_hw.astype(np.float64) * (largest / (2**BITS_STORED - 1))
    values_hw = np.rint(largest - values_hw if inverted else values_hw)
    if bits_stored <= 8:
        return np.asarray(values_hw, dtype=np.uint8)
    return np.asarray(values_hw, dtype=np.uint16)


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
