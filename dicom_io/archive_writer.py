"""Turn an image folder with a manifest into an archive export: DX objects, SEG masks, labels.

One folder a study, UIDs derived from the manifest, so that a second run writes the same objects.
"""

import csv
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from pydicom import Dataset

from dicom_io.archive_index import LABEL_COLUMNS, LABELS, LABELS_NAME
from dicom_io.errors import ArchiveError
from dicom_io.export_objects import mask_object, radiograph_object
from dicom_io.grey_picture import GreyPicture, read_grey_picture, read_mask_picture
from dicom_io.manifest import MANIFEST_NAME, ManifestRow, read_manifest

__all__ = ["MANIFEST_NAME", "Created", "ManifestRow", "create_export", "read_manifest"]

ATTRIBUTION_NAME: Final = "attribution.csv"
ATTRIBUTION_COLUMNS: Final = ("SOPInstanceUID", "image", "source", "licence")


@dataclass(frozen=True)
class Created:
    """What a run of ``create_export`` wrote.

    Attributes:
        images: number of DX objects.
        masks: number of SEG objects.
        problems: (image id, reason) of each row that could not be used in full.
    """

    images: int
    masks: int
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Written:
    row: ManifestRow
    sop_instance_uid: str | None
    has_mask: bool
    problem: str


def create_export(
    rows: list[ManifestRow], out: Path, jobs: int | None = None
) -> Generator[int, None, Created]:
    """Write an export, giving the number of rows done so far; the tables come last.

    Args:
        rows: of a manifest.
        out: folder of the export. Existing files of the same objects are replaced; lines of other
            objects in its tables are kept.
        jobs: processes; None for one for each core, 1 for none beside this one.

    Returns:
        An iterator over the progress whose value (``StopIteration.value``) is a ``Created``.

    Raises:
        ArchiveError: the folder cannot be written to, or a table in it is none of ours.
    """
    first, repeated = _first_of_each_image(rows)
    written = [_Written(row, None, False, "its id stands twice in its source") for row in repeated]
    yield len(written)
    with _writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        for result in _in_parallel(partial(_write_row, out), first, jobs):
            written.append(result)
            yield len(written)
        _write_tables(out, written)
    return Created(
        images=sum(result.sop_instance_uid is not None for result in written),
        masks=sum(result.has_mask for result in written),
        problems=tuple((one.row.image_id, one.problem) for one in written if one.problem),
    )


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    """What stops the whole run, as one kind of error."""
    try:
        yield
    except OSError as cause:
        raise ArchiveError(f"{out} cannot be written to: {cause.strerror}") from cause
    except BrokenProcessPool as cause:
        raise ArchiveError(
            "a process that reads pictures died, perhaps for want of memory; try --jobs 1"
        ) from cause


def _first_of_each_image(
    rows: list[ManifestRow],
) -> tuple[list[ManifestRow], list[ManifestRow]]:
    """Rows whose object no earlier row makes, and the rest."""
    first: dict[tuple[str, str], ManifestRow] = {}
    repeated = []
    for row in rows:
        if first.setdefault((row.source, row.image_id), row) is not row:
            repeated.append(row)
    return list(first.values()), repeated


def _in_parallel(
    write: Callable[[ManifestRow], _Written], rows: list[ManifestRow], jobs: int | None
) -> Iterator[_Written]:
    if jobs == 1:
        yield from map(write, rows)
        return
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        yield from pool.map(write, rows, chunksize=8)


def _write_row(out: Path, row: ManifestRow) -> _Written:
    """Write one image and its mask; a row that cannot be used becomes a problem."""
    try:
        if row.label not in ("", *LABELS):
            raise ArchiveError(f"the label is none of {', '.join(LABELS)}")
        picture = read_grey_picture(row.image)
        image = radiograph_object(row, picture)
    except ArchiveError as problem:
        return _Written(row, None, False, str(problem))
    folder = out / f"study-{image.StudyInstanceUID.rpartition('.')[2]}"
    folder.mkdir(exist_ok=True)
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    uid, mask_path = str(image.SOPInstanceUID), folder / "lungs.dcm"
    if row.lung_mask is None:
        mask_path.unlink(missing_ok=True)
        return _Written(row, uid, False, "")
    try:
        mask = _mask_of(row.lung_mask, image, picture)
    except ArchiveError as problem:
        mask_path.unlink(missing_ok=True)
        return _Written(row, uid, False, str(problem))
    mask.save_as(mask_path, enforce_file_format=True)
    return _Written(row, uid, True, "")


def _mask_of(path: Path, image: Dataset, picture: GreyPicture) -> Dataset:
    mask_hw = read_mask_picture(path)
    if mask_hw.shape != picture.pixels_hw.shape:
        sizes = [
            f"{columns} x {rows}" for rows, columns in (mask_hw.shape, picture.pixels_hw.shape)
        ]
        raise ArchiveError(f"{path} has {sizes[0]} pixels, its image {sizes[1]}")
    return mask_object(image, mask_hw)


def _write_tables(out: Path, written: Iterable[_Written]) -> None:
    """``labels.csv`` for programs, ``attribution.csv`` for whoever must name sources."""
    done = [(one.sop_instance_uid, one.row) for one in written if one.sop_instance_uid]
    labels = ((uid, row.label, row.split) for uid, row in done)
    sources = ((uid, row.image_id, row.source, row.licence) for uid, row in done)
    _write_table(out / LABELS_NAME, LABEL_COLUMNS, labels)
    _write_table(out / ATTRIBUTION_NAME, ATTRIBUTION_COLUMNS, sources)


def _write_table(path: Path, columns: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> None:
    """Write a table keyed by its first column; lines of other keys that stand there are kept."""
    by_uid = {line[0]: line for line in chain(_standing_lines(path, columns), lines)}
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((columns, *by_uid.values()))
    unfinished.replace(path)


def _standing_lines(path: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [tuple(line) for line in csv.reader(file) if line]
    if lines and lines[0] != columns:
        raise ArchiveError(f"{path} is another table; move it away or choose another folder")
    return lines[1:]
