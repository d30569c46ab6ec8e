"""The colours of a result, the same in every kind of object.

The saliency table is matplotlib's inferno: its lightness rises evenly, so that equal steps look
equal, in grey print and to colour-blind readers too. The lungs' two colours do not occur in it.
"""

from typing import Final

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

RIGHT_LUNG_RGB: Final = (64, 196, 255)
LEFT_LUNG_RGB: Final = (110, 245, 130)

# Below the first value the film is left untouched: a gradient is never quite zero, and a haze over
# the whole film would hide it for nothing. At 1 the second value of the film is covered.
SALIENCY_STARTS_AT: Final = 0.25
LARGEST_COVER: Final = 0.75
COVER_EXPONENT: Final = 0.7

_TABLE: Final = (colormaps["inferno"](np.linspace(0.0, 1.0, 256))[:, :3] * 255).astype(np.float32)


def blend_saliency(
    grey_hw: NDArray[np.uint8], saliency_hw: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Lay the saliency over a film so that the film shows through.

    Args:
        grey_hw: uint8, (rows, columns), the film.
        saliency_hw: float32 in [0, 1], (rows, columns).

    Returns:
        float32 in [0, 255], (rows, columns, 3).
    """
    level_hw = np.clip(saliency_hw, 0.0, 1.0)
    colour_hwc = _TABLE[np.rint(level_hw * 255).astype(np.uint8)]
    rising_hw = np.clip((level_hw - SALIENCY_STARTS_AT) / (1 - SALIENCY_STARTS_AT), 0.0, 1.0)
    cover_hwc = (LARGEST_COVER * rising_hw**COVER_EXPONENT)[..., np.newaxis]
    film_hwc = grey_hw[..., np.newaxis].astype(np.float32)
    return np.asarray(film_hwc * (1 - cover_hwc) + colour_hwc * cover_hwc, dtype=np.float32)
