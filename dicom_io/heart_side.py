"""On which side of a film the heart lies, as a check on what the source says of its orientation.

The heart hides the medial lower part of the patient's left lung, which is therefore brighter there
than the right. A film that was flipped without a word shows it on the other side, and so does
dextrocardia; the picture alone cannot tell the two apart.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

# The part of the lungs' height, from the apex, where the heart lies beside the lung.
HEART_BAND: Final = (0.50, 0.85)
LARGEST_SIDE_PIXELS: Final = 512
SMALLEST_PART_PIXELS: Final = 16


def heart_asymmetry(
    grey_hw: NDArray[np.generic],
    lower_hw: NDArray[np.bool_],
    higher_hw: NDArray[np.bool_],
) -> float | None:
    """How much brighter the medial lower part of one lung is than that of the other.

    Args:
        grey_hw: (rows, columns), larger is brighter, upright: a higher row is nearer to the feet.
        lower_hw: bool, the lung at lower column indices.
        higher_hw: bool, the lung at higher column indices.

    Returns:
        Difference of the means, in standard deviations of the grey values in both lungs; positive
        where the heart lies on the side of ``higher_hw``. None where the lungs are too small.
    """
    step = max(1, max(grey_hw.shape) // LARGEST_SIDE_PIXELS)
    grey_hw = grey_hw[::step, ::step]
    lower_hw, higher_hw = lower_hw[::step, ::step], higher_hw[::step, ::step]
    inside = grey_hw[lower_hw | higher_hw].astype(np.float64)
    rows = np.flatnonzero((lower_hw | higher_hw).any(axis=1))
    if not len(rows) or inside.std() == 0:
        return None
    top, height = rows[0], rows[-1] - rows[0] + 1
    band = slice(int(top + HEART_BAND[0] * height), int(top + HEART_BAND[1] * height))
    lower = _mean_of_medial_half(grey_hw[band], lower_hw[band], medial_is_higher=True)
    higher = _mean_of_medial_half(grey_hw[band], higher_hw[band], medial_is_higher=False)
    return None if lower is None or higher is None else float((higher - lower) / inside.std())


def _mean_of_medial_half(
    grey_hw: NDArray[np.generic], lung_hw: NDArray[np.bool_], medial_is_higher: bool
) -> float | None:
    """Mean grey of the half of a lung, row by row, that is nearer to the spine."""
    first = lung_hw.argmax(axis=1)
    last = lung_hw.shape[1] - 1 - lung_hw[:, ::-1].argmax(axis=1)
    beyond_hw = np.arange(lung_hw.shape[1])[np.newaxis] > ((first + last) / 2)[:, np.newaxis]
    medial_hw = lung_hw & (beyond_hw if medial_is_higher else ~beyond_hw)
    if np.count_nonzero(medial_hw) < SMALLEST_PART_PIXELS:
        return None
    return float(grey_hw[medial_hw].mean())
