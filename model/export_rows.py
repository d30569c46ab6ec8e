"""The rows of a table from what was read of the exports, and what of them could not be used."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_io.archive import ExportContents, ExportedImage, ExportIndex
from model.image_table import ImageRecord
from model.row_store import Kept
from model.stored_rows import NO_ROW


@dataclass(frozen=True)
class ExportRow:
    """One image of a table.

    Attributes:
        record: what is known of it.
        image_row: where the cache has its network input.
        mask_row: where the cache has its lung mask, or ``NO_ROW``.
    """

    record: ImageRecord
    image_row: int
    mask_row: int


def export_rows(
    index: ExportIndex, images: Mapping[Path, Kept], masks: Mapping[Path, Kept]
) -> list[ExportRow]:
    """The images that were read, with their masks, by SOP Instance UID.

    The order is that of the draws and of the hash of the training data, so it must not depend on
    where the files lie or which export is named first.

    Args:
        index: what the exports hold.
        images: what each image's file became.
        masks: what the masks of an image became, by the image's file.
    """
    rows = []
    for image in sorted(index.images, key=lambda image: image.sop_instance_uid):
        image_row, mask = images[image.path].row, masks.get(image.path)
        if image_row is None:
            continue
        mask_row = NO_ROW if mask is None or mask.row is None else mask.row
        record = _record_of(image, has_mask=mask_row != NO_ROW)
        rows.append(ExportRow(record, image_row, mask_row))
    return rows


def export_problems(
    contents: ExportContents,
    index: ExportIndex,
    images: Mapping[Path, Kept],
    masks: Mapping[Path, Kept],
) -> list[tuple[str, str]]:
    """(path, reason) of all that could not be used, fit to be printed.

    Args:
        contents: what the files of the exports say.
        index: the same, joined.
        images: what each image's file became.
        masks: what the masks of an image became, by the image's file.
    """
    found = [
        *index.unreadable,
        *_orphans(contents, index),
        *_not_read(index, images, masks),
    ]
    return [(printable(str(path)), printable(reason)) for path, reason in found]


def _orphans(contents: ExportContents, index: ExportIndex) -> Iterator[tuple[Path, str]]:
    """Masks and labels that speak of no image in any of the exports."""
    for path in index.masks_without_image:
        yield path, "a mask without a readable image"
    tables = Counter(contents.labels[uid].table for uid in index.labels_without_image)
    for table, count in tables.items():
        yield table, f"{count} of its lines name no readable image"


def _not_read(
    index: ExportIndex, images: Mapping[Path, Kept], masks: Mapping[Path, Kept]
) -> Iterator[tuple[Path, str]]:
    for image in index.images:
        kept, mask = images[image.path], masks.get(image.path)
        if kept.row is None:
            yield image.path, kept.problem
        elif mask is not None and mask.row is None:
            path = image.mask_paths[0]
            yield path, mask.problem.removeprefix(f"{path} ")


def printable(text: str) -> str:
    """A file's name need not be Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _record_of(image: ExportedImage, *, has_mask: bool) -> ImageRecord:
    return ImageRecord(
        sop_instance_uid=image.sop_instance_uid,
        path=str(image.path),
        mask_paths=tuple(map(str, image.mask_paths)),
        patient=image.patient,
        study_uid=image.study_uid,
        label=image.label,
        split=image.split,
        has_mask=has_mask,
        source=image.source,
        view=image.view,
        sex=image.sex,
        age_years=image.age_years,
        manufacturer=image.manufacturer,
        station=image.station,
        sender=image.sender,
        rows=image.rows,
        columns=image.columns,
        patient_orientation=image.patient_orientation,
        pixel_spacing_mm=image.pixel_spacing_mm,
    )
