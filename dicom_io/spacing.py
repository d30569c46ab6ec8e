"""How large a pixel of a radiograph is, and what follows: display aspect and lung areas.

A film is a projection. Imager Pixel Spacing is measured at the detector, where the chest appears
magnified; Pixel Spacing may be corrected for that, or merely repeat it (PS3.3 10.7.1.3).
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

# Films are digitised at 0.05 to 0.4 mm; a value outside this range is a sender's mistake.
SMALLEST_SPACING_MM: Final = 0.005
LARGEST_SPACING_MM: Final = 10.0
LARGEST_ASPECT: Final = 4.0


class SpacingPlane(Enum):
    """Where the spacing was measured; the value is what a reader is told."""

    PATIENT = "calibrated"
    UNKNOWN = "calibration unknown"
    DETECTOR = "at the detector"


@dataclass(frozen=True)
class Spacing:
    """Distance between pixel centres.

    Attributes:
        row_mm: between rows, vertically, in mm.
        column_mm: between columns, horizontally, in mm.
        plane: where it was measured.
    """

    row_mm: float
    column_mm: float
    plane: SpacingPlane


def pixel_spacing(dataset: Dataset) -> Spacing | None:
    """The spacing of the attribute Pixel Spacing, with what is known of its calibration.

    PS3.3 10.7.1.3: where Pixel Spacing equals Imager Pixel Spacing and no calibration is stated,
    the values are those at the detector.

    Returns:
        The spacing, or None where Pixel Spacing is missing or unusable.
    """
    values = spacing_of(dataset, "PixelSpacing")
    if values is None:
        return None
    imager = spacing_of(dataset, "ImagerPixelSpacing")
    if dataset.get("PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL"):
        plane = SpacingPlane.PATIENT
    elif imager is None:
        plane = SpacingPlane.UNKNOWN
    else:
        same = all(math.isclose(*both, rel_tol=1e-4) for both in zip(values, imager, strict=True))
        plane = SpacingPlane.DETECTOR if same else SpacingPlane.PATIENT
    return Spacing(*values, plane)


def display_aspect(dataset: Dataset) -> float:
    """Height of a pixel divided by its width, for drawing a film undistorted.

    Returns:
        From Pixel Spacing, Imager Pixel Spacing, Nominal Scanned Pixel Spacing or Pixel Aspect
        Ratio, whichever comes first; 1.0 where none is usable. In [1/4, 4].
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = spacing_of(dataset, keyword)
        if values is not None:
            return _plausible_aspect(values)
    ratio = _pair(dataset, "PixelAspectRatio", 1.0, 100_000.0)
    return 1.0 if ratio is None else _plausible_aspect(ratio)


def spacing_of(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Row and column spacing in mm of a spacing attribute, or None where it is unusable."""
    return _pair(dataset, keyword, SMALLEST_SPACING_MM, LARGEST_SPACING_MM)


def lung_area_cm2(mask_hw: NDArray[np.bool_], dataset: Dataset) -> float | None:
    """Area of a mask by Pixel Spacing.

    Imager Pixel Spacing alone gives no area: it would be that of the magnified shadow.

    Args:
        mask_hw: bool, (rows, columns).
        dataset: the source.

    Returns:
        The area in cm2, or None where the source has no usable Pixel Spacing.
    """
    spacing = pixel_spacing(dataset)
    if spacing is None:
        return None
    return float(np.count_nonzero(mask_hw)) * spacing.row_mm * spacing.column_mm / 100.0


def lung_area_percent(mask_hw: NDArray[np.bool_]) -> float:
    """Share of the film that a mask covers, in percent (0 to 100)."""
    return 100.0 * float(np.count_nonzero(mask_hw)) / mask_hw.size


def _plausible_aspect(height_width: tuple[float, float]) -> float:
    aspect = height_width[0] / height_width[1]
    return aspect if 1.0 / LARGEST_ASPECT <= aspect <= LARGEST_ASPECT else 1.0


def _pair(
    dataset: Dataset, keyword: str, smallest: float, largest: float
) -> tuple[float, float] | None:
    """Two decimals of an attribute, or None unless both are there and within the range."""
    try:
        values = [float(value) for value in dataset.get(keyword) or ()]
    except (TypeError, ValueError, OverflowError):
        return None
    if len(values) != 2 or not all(smallest <= value <= largest for value in values):
        return None
    return values[0], values[1]
