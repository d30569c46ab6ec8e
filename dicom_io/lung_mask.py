"""Lung masks out of DICOM Segmentations, whoever wrote them.

One or several lung segments (both, right, left, lobes), binary, fractional or label map, on the
image's own grid or another one of the same film.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.utils import iter_pixels

from dicom_io.archive_file import read_dataset
from dicom_io.errors import ArchiveError, MaskMismatch
from dicom_io.lung_segments import (
    SEGMENTATION_CLASSES,
    groups_of_frames,
    lung_segments,
    referenced_images,
    segment_of_frame,
    sources_of_frame,
)
from dicom_io.pixels import LARGEST_IMAGE_PIXELS

# A mask of the same film has its image's shape, but for rounding when it was made smaller.
LARGEST_ASPECT_DIFFERENCE: Final = 0.02


class MaskedImage(Protocol):
    """What must be known of the image that a mask belongs to."""

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID of the image."""

    @property
    def rows(self) -> int:
        """Rows of the image."""

    @property
    def columns(self) -> int:
        """Columns of the image."""

    @property
    def patient_orientation(self) -> tuple[str, ...]:
        """Patient Orientation of the image; empty where it is not known."""


def read_lung_mask(paths: Sequence[Path], image: MaskedImage) -> NDArray[np.bool_]:
    """Read the union of all lung segments that reference one image.

    Args:
        paths: SEG files offered for the image.
        image: the image.

    Returns:
        bool, (rows, columns) of the image. A fractional mask counts from one half on; one of
        another size is stretched to the image by nearest neighbour; one of another orientation is
        turned.

    Raises:
        MaskMismatch: a file cannot be read, references another image, has another shape, no lung
            segment or an empty one; the message names the path and the reason.
    """
    mask_hw = np.zeros((image.rows, image.columns), dtype=np.bool_)
    for path in paths:
        try:
            mask_hw |= _read_one(path, image)
        except MaskMismatch as problem:
            raise MaskMismatch(f"{path} {problem}") from problem
        except ArchiveError as problem:
            raise MaskMismatch(str(problem)) from problem
        except Exception as cause:  # damaged files raise many kinds; all mean one thing
            raise MaskMismatch(
                f"{path} cannot be read as a mask: {type(cause).__name__}"
            ) from cause
    return mask_hw


def _read_one(path: Path, image: MaskedImage) -> NDArray[np.bool_]:
    segmentation = read_dataset(path)
    if segmentation.get("SOPClassUID") not in SEGMENTATION_CLASSES:
        raise MaskMismatch("is no Segmentation")
    segments = lung_segments(segmentation)
    if not segments:
        raise MaskMismatch("has no lung segment")
    if image.sop_instance_uid not in referenced_images(segmentation):
        raise MaskMismatch(f"references another image than {image.sop_instance_uid}")
    rows, columns = int(segmentation.Rows), int(segmentation.Columns)
    if rows * columns > LARGEST_IMAGE_PIXELS:
        raise MaskMismatch(f"is too large: {columns} x {rows} pixels")
    mask_hw = np.zeros((rows, columns), dtype=np.bool_)
    for frame_hw in _lung_frames(segmentation, segments, image.sop_instance_uid):
        mask_hw |= frame_hw
    if not mask_hw.any():
        raise MaskMismatch("has lung segments without a single pixel")
    orientation = tuple(segmentation.get("PatientOrientation") or ())
    return _on_grid(_turned(mask_hw, orientation, image.patient_orientation), image)


def _lung_frames(
    segmentation: Dataset, segments: frozenset[int], sop_instance_uid: str
) -> Iterator[NDArray[np.bool_]]:
    """Lung frames of one image on the SEG's own grid, decoded one at a time."""
    groups = groups_of_frames(segmentation)
    is_label_map = segmentation.get("SegmentationType") == "LABELMAP"
    count = int(segmentation.get("NumberOfFrames") or 1)
    only_segment = next(iter(segments)) if len(segmentation.SegmentSequence) == 1 else None
    wanted = []
    for number in range(min(count, max(len(groups), 1))):
        of_frame = groups[number] if groups else []
        sources = sources_of_frame(of_frame)
        is_lung = is_label_map or (segment_of_frame(of_frame) or only_segment) in segments
        if is_lung and (not sources or sop_instance_uid in sources):
            wanted.append(number)
    half = _half(segmentation)
    for frame_hw in _frames(segmentation, wanted):
        yield np.isin(frame_hw, sorted(segments)) if is_label_map else frame_hw >= half


def _frames(segmentation: Dataset, numbers: list[int]) -> Iterator[NDArray[np.integer[Any]]]:
    """Stored values of some frames, (rows, columns) each, decoded one at a time."""
    if not numbers:
        return
    if segmentation.BitsAllocated != 1 or segmentation.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(segmentation, indices=numbers, raw=True)
        return
    # pydicom 3.0.2 fails on single frames that begin inside a byte (PS3.5 8.1.1 packs them so).
    packed = np.frombuffer(segmentation.PixelData, dtype=np.uint8)
    shape = (int(segmentation.Rows), int(segmentation.Columns))
    pixels = shape[0] * shape[1]
    for number in numbers:
        first = number * pixels
        bits = np.unpackbits(packed[first // 8 : (first + pixels + 7) // 8], bitorder="little")
        yield bits[first % 8 : first % 8 + pixels].reshape(shape)


def _half(segmentation: Dataset) -> float:
    """The stored value from which on a pixel counts as inside."""
    if segmentation.get("SegmentationType") != "FRACTIONAL":
        return 1.0
    return float(segmentation.get("MaximumFractionalValue") or 255) / 2


def _turned(
    mask_hw: NDArray[np.bool_], drawn: tuple[str, ...], wanted: tuple[str, ...]
) -> NDArray[np.bool_]:
    """Turn and mirror a mask until its axes run as those of the image.

    Args:
        mask_hw: the mask.
        drawn: its Patient Orientation (PS3.3 C.7.6.1.1.1): where rows and columns run to.
        wanted: that of the image.

    Raises:
        MaskMismatch: the mask shows the patient from another direction than the image.
    """
    ends = {"L": "R", "R": "L", "H": "F", "F": "H", "A": "P", "P": "A"}
    mask_ends, image_ends = ([letters[:1] for letters in both] for both in (drawn, wanted))
    planes = [{frozenset((end, ends.get(end))) for end in of} for of in (mask_ends, image_ends)]
    is_known = len(mask_ends) == len(image_ends) == 2 and {*mask_ends, *image_ends} <= {*ends}
    if not is_known or any(len(plane) != 2 for plane in planes):
        return mask_hw
    if planes[0] != planes[1]:
        orientations = " and ".join("/".join(letters) for letters in (drawn, wanted))
        raise MaskMismatch(f"shows another view than its image: orientations {orientations}")
    if image_ends[0] not in (mask_ends[0], ends[mask_ends[0]]):
        mask_hw, mask_ends = mask_hw.T, mask_ends[::-1]
    along_rows, along_columns = zip(mask_ends, image_ends, strict=True)
    if along_rows[1] == ends[along_rows[0]]:
        mask_hw = mask_hw[:, ::-1]
    if along_columns[1] == ends[along_columns[0]]:
        mask_hw = mask_hw[::-1]
    return mask_hw


def _on_grid(mask_hw: NDArray[np.bool_], image: MaskedImage) -> NDArray[np.bool_]:
    """Bring a mask onto the image's grid by nearest neighbour; the film must be the same shape."""
    rows, columns = mask_hw.shape
    if (rows, columns) == (image.rows, image.columns):
        return mask_hw
    stretch = (image.rows / rows) / (image.columns / columns)
    if abs(stretch - 1.0) > LARGEST_ASPECT_DIFFERENCE:
        raise MaskMismatch(
            f"is {columns} x {rows}, its image {image.columns} x {image.rows} pixels"
        )
    from_rows = ((np.arange(image.rows) + 0.5) * rows / image.rows).astype(int)
    from_columns = ((np.arange(image.columns) + 0.5) * columns / image.columns).astype(int)
    return np.asarray(mask_hw[from_rows[:, None], from_columns[None, :]], dtype=np.bool_)
