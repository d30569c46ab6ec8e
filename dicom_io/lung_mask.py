"""Lung masks out of DICOM Segmentations, whoever wrote them.

One or several lung segments (both, right, left, lobes), binary, fractional or label map, on the
image's own grid or another one of the same film.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, SegmentationStorage

from dicom_io.errors import MaskMismatch

LABEL_MAP_SEGMENTATION_STORAGE: Final = UID("1.2.840.10008.5.1.4.1.1.66.7")
SEGMENTATION_CLASSES: Final = (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE)
# SNOMED CT: lung structure, right, left; both lungs; and the same by SRT code.
_LUNG_CODES: Final = frozenset(
    {"39607008", "3341006", "44029006", "181216001", "T-28000", "T-28100", "T-28500"}
)
_LUNG_WORDS: Final = re.compile(r"\b(lungs?|pulmo\w*|lunge\w*|poumons?|polmon\w*)\b", re.IGNORECASE)


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


def read_lung_mask(paths: Sequence[Path], image: MaskedImage) -> NDArray[np.bool_]:
    """Read the union of all lung segments that reference one image.

    Args:
        paths: SEG files offered for the image.
        image: the image.

    Returns:
        bool, (rows, columns) of the image.

    Raises:
        MaskMismatch: a file cannot be read, references another image, or has no lung segment; the
            message names the path and the reason.
    """
    mask_hw = np.zeros((image.rows, image.columns), dtype=np.bool_)
    for path in paths:
        mask_hw |= _read_one(path, image)
    return mask_hw


def referenced_images(segmentation: Dataset) -> frozenset[str]:
    """SOP Instance UIDs of the images that a SEG says it was drawn on."""
    found: set[str] = set()
    for series in segmentation.get("ReferencedSeriesSequence") or ():
        for instance in series.get("ReferencedInstanceSequence") or ():
            found.add(str(instance.get("ReferencedSOPInstanceUID", "")))
    for groups in _frame_groups(segmentation):
        found |= _sources_of(groups)
    for item in segmentation.get("SourceImageSequence") or ():
        found.add(str(item.get("ReferencedSOPInstanceUID", "")))
    return frozenset(found - {""})


def lung_segments(segmentation: Dataset) -> frozenset[int]:
    """Numbers of the segments that are lung, by code or by label."""
    return frozenset(
        int(segment.SegmentNumber)
        for segment in segmentation.get("SegmentSequence") or ()
        if _is_lung(segment)
    )


def _read_one(path: Path, image: MaskedImage) -> NDArray[np.bool_]:
    try:
        segmentation = dcmread(path)
        if segmentation.SOPClassUID not in SEGMENTATION_CLASSES:
            raise MaskMismatch(f"{path} is no Segmentation")
        wanted = lung_segments(segmentation)
        if not wanted:
            raise MaskMismatch(f"{path} has no lung segment")
        if image.sop_instance_uid not in referenced_images(segmentation):
            raise MaskMismatch(f"{path} references another image than {image.sop_instance_uid}")
        frames_hw = _lung_frames(segmentation, wanted, image.sop_instance_uid)
    except (InvalidDicomError, OSError, AttributeError, ValueError, NotImplementedError) as cause:
        raise MaskMismatch(f"{path} cannot be read as a mask: {type(cause).__name__}") from cause
    return _on_grid(frames_hw, path, image)


def _lung_frames(
    segmentation: Dataset, wanted: frozenset[int], sop_instance_uid: str
) -> NDArray[np.bool_]:
    """The union of the lung frames of one image, on the SEG's own grid."""
    pixels = segmentation.pixel_array
    frames = pixels if pixels.ndim == 3 else pixels[None]
    mask_hw = np.zeros(frames.shape[1:], dtype=np.bool_)
    if segmentation.SegmentationType == "LABELMAP":
        for frame in frames:
            mask_hw |= np.isin(frame, sorted(wanted))
        return mask_hw
    half = 1
    if segmentation.SegmentationType == "FRACTIONAL":
        half = (int(segmentation.get("MaximumFractionalValue") or 255) + 1) // 2
    groups_of_frames = list(_frame_groups(segmentation))
    for number, frame in enumerate(frames):
        groups = groups_of_frames[number] if number < len(groups_of_frames) else []
        sources = _sources_of(groups)
        if _segment_of(groups) in wanted and (not sources or sop_instance_uid in sources):
            mask_hw |= frame >= half
    return mask_hw


def _on_grid(mask_hw: NDArray[np.bool_], path: Path, image: MaskedImage) -> NDArray[np.bool_]:
    """Bring a mask onto the image's grid by nearest neighbour; the film must be the same shape."""
    rows, columns = mask_hw.shape
    if (rows, columns) == (image.rows, image.columns):
        return mask_hw
    stretch = (image.rows / rows) / (image.columns / columns)
    if not 0.98 <= stretch <= 1.02:
        raise MaskMismatch(
            f"{path} is {columns} x {rows}, its image {image.columns} x {image.rows} pixels"
        )
    from_rows = np.minimum((np.arange(image.rows) + 0.5) * rows / image.rows, rows - 1).astype(int)
    from_columns = np.minimum(
        (np.arange(image.columns) + 0.5) * columns / image.columns, columns - 1
    ).astype(int)
    on_grid_hw: NDArray[np.bool_] = mask_hw[from_rows[:, None], from_columns[None, :]]
    return on_grid_hw


def _frame_groups(segmentation: Dataset) -> list[list[Dataset]]:
    """For each frame the functional groups that hold for it: its own, then the shared ones."""
    shared = list(segmentation.get("SharedFunctionalGroupsSequence") or ())
    own = segmentation.get("PerFrameFunctionalGroupsSequence") or ()
    return [[frame, *shared] for frame in own] or ([shared] if shared else [])


def _sources_of(groups: Sequence[Dataset]) -> set[str]:
    return {
        str(source.get("ReferencedSOPInstanceUID", ""))
        for group in groups
        for derivation in group.get("DerivationImageSequence") or ()
        for source in derivation.get("SourceImageSequence") or ()
    }


def _segment_of(groups: Sequence[Dataset]) -> int | None:
    for group in groups:
        for item in group.get("SegmentIdentificationSequence") or ():
            return int(item.ReferencedSegmentNumber)
    return None


def _is_lung(segment: Dataset) -> bool:
    types = segment.get("SegmentedPropertyTypeCodeSequence") or ()
    if any(str(code.get("CodeValue", "")) in _LUNG_CODES for code in types):
        return True
    words = [str(code.get("CodeMeaning", "")) for code in types]
    words.append(str(segment.get("SegmentLabel", "")))
    return any(_LUNG_WORDS.search(word) for word in words)
