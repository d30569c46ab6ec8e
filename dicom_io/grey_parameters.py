"""How a source says that its grey values are meant and shown, as far as that can be used.

Headers hold empty windows, decimal commas and misspelt functions. What cannot be used counts as
absent, for the pixels that are read as for the presentation state that shows them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import Dataset

LINEAR: Final = "LINEAR"
_FUNCTIONS: Final = (LINEAR, "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class Rescale:
    """PS3.3 C.11.1.1.2: a value is ``slope`` times the stored one plus ``intercept``."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class Window:
    """PS3.3 C.11.2.1.2: the values that are shown between black and white, and by which function.

    Attributes:
        centre: of the window.
        width: at least 1.
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    centre: float
    width: float
    function: str


def rescale_of(source: Dataset) -> Rescale | None:
    """The rescale of a source, or None where it has no usable one."""
    slope, intercept = _first(source, "RescaleSlope"), _first(source, "RescaleIntercept")
    return None if not slope or intercept is None else Rescale(slope, intercept)


def window_of(source: Dataset) -> Window | None:
    """The first window of a source, or None where it has no usable one."""
    centre, width = _first(source, "WindowCenter"), _first(source, "WindowWidth")
    if centre is None or width is None or width < 1:
        return None
    function = str(source.get("VOILUTFunction") or "").upper()
    return Window(centre, width, function if function in _FUNCTIONS else LINEAR)


def _first(source: Dataset, keyword: str) -> float | None:
    """The first of the values of a decimal attribute; None if it has none, or is malformed."""
    try:
        value = source.get(keyword)
        given = [] if value is None or value == "" else value
        numbers = np.atleast_1d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):  # text becomes a number only when it is asked for
        return None
    return float(numbers[0]) if len(numbers) and np.isfinite(numbers).all() else None
