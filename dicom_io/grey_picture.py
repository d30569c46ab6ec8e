"""Ordinary picture files (JPEG, PNG, TIFF) as grey pixels for an archive export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dicom_io.errors import ArchiveError
from dicom_io.pixels import LARGEST_IMAGE_PIXELS, SMALLEST_SIDE_PIXELS

_DEEP_MODES: Final = ("I", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class GreyPicture:
    """A picture's grey values.

    Attributes:
        pixels_hw: uint8 or uint16, (rows, columns), as stored; colour is turned to luminance.
        lossy_ratio: how many times smaller its JPEG file is than the pixels; None where the file
            keeps every pixel.
    """

    pixels_hw: NDArray[np.uint8] | NDArray[np.uint16]
    lossy_ratio: float | None


def read_grey_picture(path: Path) -> GreyPicture:
    """Read a picture at its full grey depth, turned upright where its EXIF orientation asks so.

    Raises:
        ArchiveError: it cannot be read, or its size is absurd; the message names the file.
    """
    try:
        with Image.open(path) as picture:
            _require_sensible_size(picture, path)
            pixels_hw = _grey(ImageOps.exif_transpose(picture))
            is_jpeg = picture.format in ("JPEG", "MPO")
        file_size = path.stat().st_size
    except UnidentifiedImageError as cause:
        raise ArchiveError(f"{path} is no picture that can be read") from cause
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as cause:
        raise ArchiveError(f"{path} cannot be read: {type(cause).__name__}") from cause
    return GreyPicture(pixels_hw, pixels_hw.nbytes / max(file_size, 1) if is_jpeg else None)


def read_mask_picture(path: Path) -> NDArray[np.bool_]:
    """Read a mask: True where a pixel is above half of the largest value, be that 1 or 255.

    Raises:
        ArchiveError: it cannot be read, or is empty; the message names the file.
    """
    pixels_hw = read_grey_picture(path).pixels_hw
    if not pixels_hw.any():
        raise ArchiveError(f"{path} is an empty mask")
    return np.asarray(pixels_hw > int(pixels_hw.max()) // 2, dtype=np.bool_)


def _require_sensible_size(picture: Image.Image, path: Path) -> None:
    columns, rows = picture.size
    if rows * columns > LARGEST_IMAGE_PIXELS or min(rows, columns) < SMALLEST_SIDE_PIXELS:
        raise ArchiveError(f"{path} has {columns} x {rows} pixels; no radiograph is of that size")


def _grey(picture: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if picture.mode not in _DEEP_MODES:
        return np.asarray(picture.convert("L"), dtype=np.uint8)
    deep_hw = np.asarray(picture).astype(np.int64)
    if deep_hw.min() < 0 or deep_hw.max() > np.iinfo(np.uint16).max:
        raise ValueError("more than 16 bits a pixel")
    return deep_hw.astype(np.uint16)
