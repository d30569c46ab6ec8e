"""Archive exports, read once into files of network inputs.

Every image goes through ``dicom_io.pixels.network_image`` into a row of uint8 beside its lung mask,
in one pass over the files. All exports together are one body of contents: masks, labels and reports
may lie in another export than their images. A later start opens only files that are new or have
changed, and one that was killed goes on where it was (``model.export_cache``).
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
from rich.markup import escape
from rich.progress import Progress

from dicom_io.archive import (
    LABELS_NAME,
    ExportContents,
    ExportedImage,
    ExportFile,
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
from model.export_rows import export_problems, export_rows, printable
from model.file_journal import Examined, FileJournal
from model.image_table import ImageTable
from model.problems import tell_problems
from model.row_store import Kept, RowStore
from model.splits import require_disjoint_patients
from model.survivable_pool import Outcome, SurvivablePool

FILES_BETWEEN_SYNCS: Final = 256
PROCESS_DIED: Final = "the process that read it died or came to no end: a codec failed badly"


def load_exports(
    exports: Sequence[Path],
    cache_folder: Path | None = None,
    jobs: int | None = None,
    console: Console | None = None,
) -> ImageTable:
    """Read archive exports through the cache, join them into one table, and tell what is wrong.

    Args:
        exports: folders of DICOM files, any depth; each may hold a ``labels.csv``.
        cache_folder: where the preprocessed images are kept.
        jobs: reading processes; None for one for each core.
        console: where progress and problems go; standard error if left out, since standard output
            may be read by a program.

    Raises:
        TrainingError: no image could be read, or a patient is in two splits.
    """
    for export in exports:
        if not export.is_dir():
            raise TrainingError(f"{export} is no folder; --data takes an archive export")
    console = console or Console(stderr=True)
    distinct, overlaps = _without_overlaps(exports)
    with (
        open_cache(cache_folder or default_cache_folder(), console) as cache,
        closing(SurvivablePool(jobs or os.cpu_count() or 1)) as pool,
    ):
        reading = _Reading(cache, pool)
        images: dict[Path, Kept] = {}
        for export in distinct:
            images |= _read_export(reading, export, console)
        index = reading.contents.index()
        masks = _read_masks(
            reading,
            [i for i in index.images if i.mask_paths and images[i.path].row is not None],
            console,
        )
        rows = export_rows(index, images, masks)
        table = ImageTable(
            records=tuple(row.record for row in rows),
            images=cache.images.open([row.image_row for row in rows]),
            masks=cache.masks.open([row.mask_row for row in rows]),
            problems=(*overlaps, *export_problems(reading.contents, index, images, masks)),
        )
    tell_problems(table.problems, console)
    if not table.records:
        raise TrainingError(
            f"no readable image in {', '.join(map(str, exports))}; "
            "see `python -m dicom_io.archive check`"
        )
    require_disjoint_patients(table.records)
    return table


def _without_overlaps(exports: Sequence[Path]) -> tuple[list[Path], list[tuple[str, str]]]:
    """Exports without those that lie within another or are named again, which are problems."""
    place_of = [export.resolve() for export in exports]
    distinct, overlaps = [], []
    for number, (export, place) in enumerate(zip(exports, place_of, strict=True)):
        if place in place_of[:number] or not set(place_of).isdisjoint(place.parents):
            overlaps.append((printable(str(export)), "lies within another export and is read once"))
        else:
            distinct.append(export)
    return distinct, overlaps


@dataclass(frozen=True)
class _Reading:
    """All exports while they are read.

    Attributes:
        cache: where results go, and are looked up.
        pool: reads what is not known.
        contents: what the files say, as far as they are read.
        content_of: hash of each image's and each mask's file.
    """

    cache: ExportCache
    pool: SurvivablePool
    contents: ExportContents = field(default_factory=ExportContents)
    content_of: dict[Path, str] = field(default_factory=dict)

    def files(self, export: Path) -> Iterator[ExportFile]:
        """Every file of an export; folders that cannot be read are noted."""
        for file in export_files(export):
            if isinstance(file, Unreadable):
                self.contents.take(file)
            else:
                yield file

    def take(
        self, outcome: Outcome[ExportFile, Examined | Unreadable], journal: FileJournal
    ) -> None:
        """Note what one file is, in the journal of its export, too."""
        match outcome.made:
            case None:
                self.contents.take(Unreadable(outcome.given.path, PROCESS_DIED))
            case Unreadable() as unreadable:
                self.contents.take(unreadable)
            case Examined() as examined:
                if outcome.is_new:
                    journal.add(examined)
                if examined.content:
                    self.content_of[examined.file.path] = examined.content
                item = examined.image or examined.mask or examined.report
                if item is not None:
                    self.contents.take(item)


def _read_export(reading: _Reading, export: Path, console: Console) -> dict[Path, Kept]:
    """Sort all files of an export, and make a network input of every image, in one pass over them.

    The pool reads what the cache does not know yet.
    """
    with closing(reading.cache.journal(export)) as journal, Progress(console=console) as progress:
        files = deque(reading.files(export))
        description = f"reading {escape(printable(export.name))}"
        track = progress.track(_drained(files), description=description, total=len(files))
        images = _images_among(reading, track, journal)
        kept = _kept_by_content(reading, images, prepare_image, reading.cache.images)
        return {one.image.path: result for one, result in kept}


def _drained(files: deque[ExportFile]) -> Iterator[ExportFile]:
    """Each file once, and no longer held after it."""
    while files:
        yield files.popleft()


def _images_among(
    reading: _Reading, files: Iterable[ExportFile], journal: FileJournal
) -> Iterator[ContentImage]:
    """Every image with its hash; whatever else there is goes into the contents."""
    outcomes = reading.pool.in_order(examine, files, partial(_known_file, journal))
    for number, outcome in enumerate(outcomes, start=1):
        reading.take(outcome, journal)
        if outcome.given.path.name == LABELS_NAME:
            for line in read_labels(outcome.given.path):
                reading.contents.take(line)
        if isinstance(outcome.made, Examined) and outcome.made.image is not None:
            yield ContentImage(outcome.made.image, outcome.made.content)
        if number % FILES_BETWEEN_SYNCS == 0:
            reading.cache.sync()
            journal.sync()


def _known_file(journal: FileJournal, file: ExportFile) -> Examined | None:
    """What a file is, if it need not be opened here; tables are read elsewhere."""
    return Examined(file) if file.path.name == LABELS_NAME else journal.take(file)


def _read_masks(
    reading: _Reading, images: Sequence[ExportedImage], console: Console
) -> dict[Path, Kept]:
    """The mask of every given image; it needs the image's size, so it comes after."""
    if not images:
        return {}
    content_of = reading.content_of
    wanted = (
        ContentImage(
            image, joint_content(content_of[path] for path in (image.path, *image.mask_paths))
        )
        for image in images
    )
    with Progress(console=console) as progress:
        track = progress.track(wanted, description="masks", total=len(images))
        masks = _kept_by_content(reading, track, prepare_mask, reading.cache.masks)
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
