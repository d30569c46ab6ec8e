"""Archive exports, read once into files of network inputs.

Every image goes through ``dicom_io.pixels.network_image`` into a row of uint8 beside its lung mask,
in one pass over the files. A later start opens only files that are new or have changed, and one
that was killed goes on where it was (``model.export_cache``).
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from dicom_io.archive import (
    LABELS_NAME,
    ExportContents,
    ExportedImage,
    ExportFile,
    ExportIndex,
    Unreadable,
    export_files,
    read_labels,
)
from dicom_io.errors import TrainingError
from model.export_cache import ExportCache, default_cache_folder, open_cache
from model.export_reading import (
    ContentImage,
    Prepared,
    examine,
    joint_content,
    prepare_image,
    prepare_mask,
)
from model.file_journal import Examined, FileJournal
from model.image_table import ImageRecord, ImageTable
from model.row_store import Kept, RowStore
from model.splits import require_disjoint_patients
from model.stored_rows import NO_ROW
from model.survivable_pool import Outcome, SurvivablePool

FILES_BETWEEN_SYNCS: Final = 256
PROCESS_DIED: Final = "the process that read it died, as it does when a codec fails badly"


def load_exports(
    exports: Sequence[Path], cache_folder: Path | None = None, jobs: int | None = None
) -> ImageTable:
    """Read archive exports through the cache and join them into one table.

    Args:
        exports: folders of DICOM files, any depth; each may hold a ``labels.csv``.
        cache_folder: where the preprocessed images are kept.
        jobs: reading processes; None for one for each core.

    Raises:
        TrainingError: no image could be read, or a patient is in two splits.
    """
    for export in exports:
        if not export.is_dir():
            raise TrainingError(f"{export} is no folder; --data takes an archive export")
    console = Console(stderr=True)  # standard output may be read by a program
    with (
        open_cache(cache_folder or default_cache_folder(), console) as cache,
        closing(SurvivablePool(jobs or os.cpu_count() or 1)) as pool,
    ):
        parts = [_read_export(export, cache, pool, console) for export in exports]
        table = ImageTable(
            records=tuple(record for part in parts for record in part.records),
            images=cache.images.open([row for part in parts for row in part.image_rows]),
            masks=cache.masks.open([row for part in parts for row in part.mask_rows]),
            problems=tuple(problem for part in parts for problem in part.problems),
        )
    if not table.records:
        raise TrainingError(
            f"no readable image in {', '.join(map(str, exports))}; "
            "see `python -m dicom_io.archive check`"
        )
    require_disjoint_patients(table.records)
    return table


@dataclass(frozen=True)
class _Part:
    """One export of a table; the first three have one entry for each image."""

    records: list[ImageRecord] = field(default_factory=list)
    image_rows: list[int] = field(default_factory=list)
    mask_rows: list[int] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Reading:
    """An export while it is read.

    Attributes:
        cache: where results go, and are looked up.
        journal: what is known of the export's files.
        pool: reads what is not known.
        contents: what the files say, as far as they are read.
        content_of: hash of each image's and each mask's file.
    """

    cache: ExportCache
    journal: FileJournal
    pool: SurvivablePool
    contents: ExportContents = field(default_factory=ExportContents)
    content_of: dict[Path, str] = field(default_factory=dict)

    def files(self, export: Path) -> Iterator[ExportFile]:
        """Every file of the export; folders that cannot be read are noted."""
        for file in export_files(export):
            if isinstance(file, Unreadable):
                self.contents.take(file)
            else:
                yield file

    def take(self, outcome: Outcome[ExportFile, Examined | Unreadable]) -> None:
        """Note what one file is."""
        match outcome.made:
            case None:
                self.contents.take(Unreadable(outcome.given.path, PROCESS_DIED))
            case Unreadable() as unreadable:
                self.contents.take(unreadable)
            case Examined() as examined:
                if outcome.is_new:
                    self.journal.add(examined)
                if examined.content:
                    self.content_of[examined.file.path] = examined.content
                item = examined.image or examined.mask or examined.report
                if item is not None:
                    self.contents.take(item)

    def sync(self) -> None:
        """Return when everything read so far is on disk."""
        self.cache.sync()
        self.journal.sync()


def _read_export(export: Path, cache: ExportCache, pool: SurvivablePool, console: Console) -> _Part:
    """One export; every file of it that the cache does not know yet is read by the pool."""
    with closing(cache.journal(export)) as journal, Progress(console=console) as progress:
        reading = _Reading(cache, journal, pool)
        files = deque(reading.files(export))
        track = partial(progress.track, description=f"reading {export.name}", total=len(files))
        rows = _read_images(reading, track(_drained(files)))
        index = reading.contents.index()
        masked = [i for i in index.images if i.mask_paths and rows[i.path].row is not None]
        track = partial(progress.track, description=f"masks of {export.name}", total=len(masked))
        mask_rows = _read_masks(reading, track(masked)) if masked else {}
    return _part_of(index, rows, mask_rows)


def _drained(files: deque[ExportFile]) -> Iterator[ExportFile]:
    """Each file once, and no longer held after it."""
    while files:
        yield files.popleft()


def _read_images(reading: _Reading, files: Iterable[ExportFile]) -> dict[Path, Kept]:
    """Sort all files, and make a network input of every image, in one pass over them."""
    kept = {}
    images = _images_among(reading, files)
    for one, result in _kept_by_content(reading, images, prepare_image, reading.cache.images):
        kept[one.image.path] = result
    return kept


def _images_among(reading: _Reading, files: Iterable[ExportFile]) -> Iterator[ContentImage]:
    """Every image with its hash; whatever else there is goes into the export's contents."""
    outcomes = reading.pool.in_order(examine, files, partial(_known_file, reading.journal))
    for number, outcome in enumerate(outcomes, start=1):
        reading.take(outcome)
        if outcome.given.path.name == LABELS_NAME:
            for line in read_labels(outcome.given.path):
                reading.contents.take(line)
        if isinstance(outcome.made, Examined) and outcome.made.image is not None:
            yield ContentImage(outcome.made.image, outcome.made.content)
        if number % FILES_BETWEEN_SYNCS == 0:
            reading.sync()


def _known_file(journal: FileJournal, file: ExportFile) -> Examined | None:
    """What a file is, if it need not be opened here; tables are read elsewhere."""
    return Examined(file) if file.path.name == LABELS_NAME else journal.take(file)


def _read_masks(reading: _Reading, images: Iterable[ExportedImage]) -> dict[Path, Kept]:
    """The mask of every image that has one; it needs the image's size, so it comes after."""
    content_of = reading.content_of
    wanted = (
        ContentImage(
            image, joint_content(content_of[path] for path in (image.path, *image.mask_paths))
        )
        for image in images
    )
    masks = _kept_by_content(reading, wanted, prepare_mask, reading.cache.masks)
    return {one.image.path: result for one, result in masks}


def _kept_by_content(
    reading: _Reading,
    images: Iterable[ContentImage],
    prepare: Callable[[ContentImage], Prepared],
    store: RowStore,
) -> Iterator[tuple[ContentImage, Kept]]:
    """What each content became: looked up, or prepared and kept."""

    def known(one: ContentImage) -> Prepared | Kept | None:
        return store.find(one.content)

    for outcome in reading.pool.in_order(prepare, images, known):
        content = outcome.given.content
        match outcome.made:
            case Kept() as kept:
                yield outcome.given, kept
            case Prepared() as prepared if prepared.is_final:
                yield outcome.given, store.keep(content, prepared.pixels_hw, prepared.problem)
            case Prepared() as prepared:
                yield outcome.given, Kept(content, None, prepared.problem)
            case None:
                yield outcome.given, Kept(content, None, PROCESS_DIED)


def _part_of(index: ExportIndex, images: dict[Path, Kept], masks: dict[Path, Kept]) -> _Part:
    """The images that were read, with their masks; what was not read is a problem."""
    part = _Part(problems=[_problem(path, reason) for path, reason in index.unreadable])
    for image in index.images:
        kept, mask = images[image.path], masks.get(image.path)
        if kept.row is None:
            part.problems.append(_problem(image.path, kept.problem))
            continue
        if mask is not None and mask.row is None:
            path = image.mask_paths[0]
            part.problems.append(_problem(path, mask.problem.removeprefix(f"{path} ")))
        mask_row = NO_ROW if mask is None or mask.row is None else mask.row
        part.records.append(_record_of(image, has_mask=mask_row != NO_ROW))
        part.image_rows.append(kept.row)
        part.mask_rows.append(mask_row)
    return part


def _problem(path: Path, reason: str) -> tuple[str, str]:
    """Both as they can be printed: a file's name need not be Unicode."""
    return _printable(str(path)), _printable(reason)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _record_of(image: ExportedImage, *, has_mask: bool) -> ImageRecord:
    return ImageRecord(
        sop_instance_uid=image.sop_instance_uid,
        path=str(image.path),
        mask_paths=tuple(map(str, image.mask_paths)),
        patient=image.patient,
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
