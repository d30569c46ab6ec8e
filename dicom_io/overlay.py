"""The picture of a reading: the film under its saliency, the lungs outlined, the legend beside it.

Nothing is ever drawn over the film but saliency, contours and the letters R and L.
"""

from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from scipy import ndimage

from dicom_io.colours import LEFT_LUNG_RGB, RIGHT_LUNG_RGB, blend_saliency
from dicom_io.findings import Findings
from dicom_io.legend import PANEL, draw_legend
from dicom_io.lettering import font_of
from dicom_io.pixels import resize
from dicom_io.spacing import display_aspect

# Smaller films are enlarged and larger ones reduced until their longer side is in this range:
# text stays legible, and the object stays below some 10 MB.
SMALLEST_LONG_SIDE: Final = 1024
LARGEST_LONG_SIDE: Final = 1536
TEXT_HEIGHTS_IN_LONG_SIDE: Final = 48
CONTOUR_WIDTHS_IN_LONG_SIDE: Final = 420


def draw_overlay(
    display_hw: NDArray[np.uint8],
    findings: Findings,
    *,
    source: Dataset,
    created: datetime,
) -> Image.Image:
    """Draw the picture that a reader sees.

    Args:
        display_hw: uint8, (rows, columns), the film as ``pixels.display_image`` gives it.
        findings: what was found, masks and saliency of the same rows and columns.
        source: the radiograph, for the shape of its pixels, pixel spacing and time zone.
        created: when the result was made.

    Returns:
        An RGB picture: the film at the left, undistorted, its longer side from 1024 to 1536
        pixels; the legend at the right.

    Raises:
        ValueError: film, masks and saliency are not of one size.
    """
    shapes = {display_hw.shape, findings.saliency_hw.shape, findings.lungs.right_hw.shape}
    if len(shapes) != 1:
        raise ValueError(f"film, saliency and masks differ in size: {sorted(shapes)}")
    rows, columns = display_hw.shape
    height, width = drawing_size(rows, columns, display_aspect(source))
    film = _draw_film(display_hw, findings, height, width)
    text_height = round(max(height, width) / TEXT_HEIGHTS_IN_LONG_SIDE)
    legend = draw_legend(findings, source, created, text_height)

    picture = Image.new("RGB", (width + legend.width, max(height, legend.height)), PANEL)
    picture.paste((0, 0, 0), (0, 0, width, picture.height))
    picture.paste(film, (0, (picture.height - height) // 2))
    picture.paste(legend, (width, 0))
    return picture


def drawing_size(rows: int, columns: int, pixel_aspect: float) -> tuple[int, int]:
    """Height and width at which a film is drawn, with square pixels.

    Args:
        rows: rows of the film.
        columns: columns of the film.
        pixel_aspect: height of one of its pixels divided by the width.

    Returns:
        Height and width in pixels, the longer from 1024 to 1536, each at least 1.
    """
    longer = max(rows * pixel_aspect, columns)
    scale = float(np.clip(longer, SMALLEST_LONG_SIDE, LARGEST_LONG_SIDE)) / longer
    return max(1, round(rows * pixel_aspect * scale)), max(1, round(columns * scale))


def _draw_film(
    display_hw: NDArray[np.uint8], findings: Findings, height: int, width: int
) -> Image.Image:
    grey_hw = np.rint(_scaled(display_hw, height, width)).astype(np.uint8)
    film_hwc = blend_saliency(grey_hw, _scaled(findings.saliency_hw, height, width))
    line_width = max(height, width) / CONTOUR_WIDTHS_IN_LONG_SIDE
    sides = (
        ("R", findings.lungs.right_hw, RIGHT_LUNG_RGB),
        ("L", findings.lungs.left_hw, LEFT_LUNG_RGB),
    )
    coverages = [_scaled(mask_hw, height, width) for _, mask_hw, _ in sides]
    for (_, _, colour), coverage_hw in zip(sides, coverages, strict=True):
        ink_hwc = _contour(coverage_hw, line_width)[..., np.newaxis]
        film_hwc = film_hwc * (1 - ink_hwc) + np.array(colour, dtype=np.float32) * ink_hwc
    film = Image.fromarray(np.rint(film_hwc).astype(np.uint8))
    mark = "" if findings.lungs.side_is_certain else "?"
    for (letter, _, colour), coverage_hw in zip(sides, coverages, strict=True):
        _draw_letter(film, letter + mark, coverage_hw, colour)
    return film


def _scaled(
    image_hw: NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.bool_], height: int, width: int
) -> NDArray[np.float32]:
    return resize(image_hw.astype(np.float32), height, width)


def _contour(coverage_hw: NDArray[np.float32], line_width: float) -> NDArray[np.float32]:
    """How much of each pixel the outline of a mask covers, in [0, 1].

    The distance to the outline is the coverage's distance to one half over its slope; a slight
    blur gives a slope on both sides of the edge.
    """
    soft_hw = ndimage.gaussian_filter(coverage_hw, sigma=line_width)
    slope_hw = np.hypot(*np.gradient(soft_hw))
    distance_hw = np.abs(soft_hw - 0.5) / np.maximum(slope_hw, 1e-6)
    ink_hw = np.clip(line_width / 2 + 0.5 - distance_hw, 0.0, 1.0)
    return np.asarray(ink_hw, dtype=np.float32)


def _draw_letter(
    film: Image.Image, text: str, coverage_hw: NDArray[np.float32], colour: tuple[int, int, int]
) -> None:
    """Write a letter above a lung's top, or just below it where the film ends too soon."""
    inside_hw = coverage_hw > 0.5
    if not inside_hw.any():
        return
    size = max(film.size) // 24
    top = int(np.flatnonzero(inside_hw.any(axis=1))[0])
    centre = float(np.flatnonzero(inside_hw[top]).mean())
    font = font_of(size)
    half = font.getlength(text) / 2 + size / 8
    x = min(max(centre, half), film.width - half)
    y = top - size * 0.25 if top > size * 1.1 else top + size * 1.2
    ImageDraw.Draw(film).text(
        (x, y), text, font=font, fill=colour, anchor="ms", stroke_width=max(1, size // 16),
        stroke_fill=(0, 0, 0),
    )  # fmt: skip
