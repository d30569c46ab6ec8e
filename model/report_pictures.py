"""The pictures of a run's report: films with mask contours, and films with saliency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

REFERENCE_COLOUR: Final = "#35d07f"
PREDICTED_COLOUR: Final = "#ff8c42"
COLUMNS = 5
STRONGEST_COVER = 0.75


@dataclass(frozen=True)
class MaskPicture:
    """A film with its predicted and its reference mask.

    Attributes:
        title: what stands above it.
        image_hw: uint8, (side, side).
        predicted_hw: bool, (side, side).
        reference_hw: bool, (side, side).
        height_by_width: of the film before it was stretched to a square.
    """

    title: str
    image_hw: NDArray[np.uint8]
    predicted_hw: NDArray[np.bool_]
    reference_hw: NDArray[np.bool_]
    height_by_width: float


@dataclass(frozen=True)
class SaliencyPicture:
    """A film and where the network looked.

    Attributes:
        title: what stands above it.
        image_hw: uint8, (side, side).
        saliency_hw: float32 in [0, 1], (side, side).
        height_by_width: of the film before it was stretched to a square.
    """

    title: str
    image_hw: NDArray[np.uint8]
    saliency_hw: NDArray[np.float32]
    height_by_width: float


def mask_sheet(pictures: Sequence[MaskPicture]) -> Figure:
    """Films side by side, the reference's contour in green and the prediction's in orange."""
    figure, places = _sheet(len(pictures))
    for axes, picture in zip(places, pictures, strict=True):
        _film(axes, picture.image_hw, picture.height_by_width, picture.title)
        for mask_hw, colour in (
            (picture.reference_hw, REFERENCE_COLOUR),
            (picture.predicted_hw, PREDICTED_COLOUR),
        ):
            if mask_hw.any() and not mask_hw.all():
                axes.contour(mask_hw, levels=[0.5], colors=[colour], linewidths=1.1)
    return figure


def saliency_sheet(pictures: Sequence[SaliencyPicture]) -> Figure:
    """Each film twice: plain, and under its saliency."""
    figure, places = _sheet(2 * len(pictures), columns=4)
    for number, picture in enumerate(pictures):
        plain, covered = places[2 * number : 2 * number + 2]
        _film(plain, picture.image_hw, picture.height_by_width, picture.title)
        _film(covered, picture.image_hw, picture.height_by_width, "")
        # Faint saliency is see-through, so that the film below it can still be read.
        covered.imshow(
            picture.saliency_hw,
            cmap="inferno",
            vmin=0,
            vmax=1,
            alpha=np.clip(picture.saliency_hw, 0, 1) * STRONGEST_COVER,
            aspect=picture.height_by_width,
        )
    return figure


def _sheet(count: int, columns: int = COLUMNS) -> tuple[Figure, list[Any]]:
    """A figure with one place for each picture, without empty frames."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.3 * columns, 2.55 * rows), layout="constrained")
    places = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in places:
        axes.set_axis_off()
    return figure, places[:count]


def _film(axes: Any, image_hw: NDArray[np.uint8], height_by_width: float, title: str) -> None:
    axes.imshow(image_hw, cmap="gray", vmin=0, vmax=255, aspect=height_by_width)
    # A title holds what the export says, where a dollar sign is no start of a formula.
    axes.set_title(title, fontsize=7, parse_math=False)
