"""What the processes that read an export do with one file; none of this raises over a bad file."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicom_io.archive import (
    ExportedImage,
    ExportedMask,
    ExportedReport,
    ExportFile,
    Unreadable,
    read_dataset,
    read_lung_mask,
    read_object,
)
from dicom_io.errors import ImageRejected, MultiMixError
from dicom_io.pixels import decode, network_image, resize
from model.file_journal import Examined
from model.image_table import TABLE_SIDE

SHORT_OF_MEMORY: Final = "there was too little memory to read it; free some and start again"


@dataclass(frozen=True)
class Prepared:
    """A network input or a mask of its size, or why there is none.

    Attributes:
        pixels_hw: uint8, (256, 256), or None.
        problem: then the reason, free of patient data.
        is_final: whether the same content will never become anything else, as it may where a file
            could not be read this time.
    """

    pixels_hw: NDArray[np.uint8] | None
    problem: str = ""
    is_final: bool = True


@dataclass(frozen=True)
class ContentImage:
    """An image of an export.

    Attributes:
        image: with the paths of its masks, where masks are wanted.
        content: hash of the files that the result is made from.
    """

    image: ExportedImage
    content: str


def examine(file: ExportFile) -> Examined | Unreadable:
    """Sort one file, whatever it is, and hash it where it has pixels of use."""
    item = read_object(file.path)
    try:
        match item:
            case Unreadable():
                return item
            case ExportedReport():
                return Examined(file, report=item)
            case ExportedMask():
                return Examined(file, mask=item, content=_content_of(file.path))
            case ExportedImage():
                return Examined(file, image=item, content=_content_of(file.path))
    except OSError as cause:
        return Unreadable(file.path, f"cannot be read: {cause.strerror}")
    return Examined(file)


def prepare_image(wanted: ContentImage) -> Prepared:
    """Decode one image to the network's input."""
    try:
        radiograph = decode(read_dataset(wanted.image.path))
        return Prepared(network_image(radiograph, TABLE_SIDE))
    except (MultiMixError, OSError) as problem:
        return Prepared(None, str(problem), is_final=isinstance(problem, ImageRejected))
    except MemoryError:
        return Prepared(None, SHORT_OF_MEMORY, is_final=False)


def prepare_mask(wanted: ContentImage) -> Prepared:
    """The lung mask of one image at the size of the network's input, 0 or 1."""
    try:
        mask_hw = read_lung_mask(wanted.image.mask_paths, wanted.image)
        small_hw = resize(mask_hw.astype(np.float32), TABLE_SIDE, TABLE_SIDE) > 0.5
    except (MultiMixError, OSError) as problem:
        return Prepared(None, str(problem), is_final=False)
    except MemoryError:
        return Prepared(None, SHORT_OF_MEMORY, is_final=False)
    return Prepared(small_hw.astype(np.uint8))


def joint_content(contents: Iterable[str]) -> str:
    """Hash of several hashes."""
    return hashlib.sha256(" ".join(contents).encode()).hexdigest()[:32]


def _content_of(path: Path) -> str:
    """128 bits of the SHA-256 hash of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
