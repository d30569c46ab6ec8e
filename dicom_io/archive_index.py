"""Reads what an archive export holds: images, lung masks, reports and labels, but no pixels.

An export is a folder of any depth with DICOM files (found by content, not by name), SEG objects as
masks, structured reports and ``labels.csv`` files with the columns SOPInstanceUID, label, split as
labels. Everything is optional but the images.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from dicom_io.archive_file import export_files
from dicom_io.archive_items import (
    ExportedImage,
    ExportedLabel,
    ExportedMask,
    ExportedReport,
    ExportItem,
    Unreadable,
)
from dicom_io.archive_object import read_object
from dicom_io.errors import ArchiveError
from dicom_io.reported_labels import reported_labels

LABELS_NAME: Final = "labels.csv"
LABELS: Final = ("normal", "pneumonia")
SPLITS: Final = ("train", "val", "test")
LABEL_COLUMNS: Final = ("SOPInstanceUID", "label", "split")


@dataclass(frozen=True)
class ExportIndex:
    """What an export holds.

    Attributes:
        images: every image of a chest-capable storage class.
        masks: number of SEG files with lung segments whose image is there.
        reports: number of structured reports that state the class of an image that is there.
        unreadable: (path, reason) of each DICOM file or table that cannot be used.
        masks_without_image: paths of SEG files that reference no image of the export.
        labels_without_image: SOP Instance UIDs in ``labels.csv`` that have no image.
    """

    images: tuple[ExportedImage, ...]
    masks: int
    reports: int
    unreadable: tuple[tuple[Path, str], ...]
    masks_without_image: tuple[Path, ...]
    labels_without_image: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing in the export needs a person's attention."""
        return not (self.unreadable or self.masks_without_image or self.labels_without_image)


def index_export(folder: Path) -> ExportIndex:
    """Read the headers of an export; pixel data is left alone.

    Time grows linearly with the number of files; what is kept of each is small.

    Args:
        folder: the export, any depth.

    Returns:
        What it holds, in the order of the paths. Results of this node are left out: a network must
        not learn from its own output.

    Raises:
        ArchiveError: the folder does not exist.
    """
    contents = ExportContents()
    for item in walk_export(folder):
        contents.take(item)
    return contents.index()


def walk_export(folder: Path) -> Iterator[ExportItem]:
    """Go through an export file by file, holding one header at a time.

    Images come without label, split and masks: those may stand in files that are yet to come.

    Args:
        folder: the export, any depth; links to folders are not followed.

    Raises:
        ArchiveError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is no folder; give the folder of an archive export")
    for file in export_files(folder):
        if isinstance(file, Unreadable):
            yield file
        elif file.path.name == LABELS_NAME:
            yield from read_labels(file.path)
        else:
            item = read_object(file.path)
            if item is not None:
                yield item


@dataclass
class ExportContents:
    """What a walk over an export has come across so far."""

    images: dict[str, ExportedImage] = field(default_factory=dict)
    masks: list[ExportedMask] = field(default_factory=list)
    labels: dict[str, ExportedLabel] = field(default_factory=dict)
    reports: dict[str, ExportedReport] = field(default_factory=dict)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    disputed_labels: set[str] = field(default_factory=set)

    def take(self, item: ExportItem) -> None:
        """Add what one file holds; of two that exclude each other the first one counts."""
        match item:
            case ExportedImage():
                if item.sop_instance_uid in self.images:
                    self._complain(item.path, "its SOP Instance UID stands in another file too")
                self.images.setdefault(item.sop_instance_uid, item)
            case ExportedMask():
                self.masks.append(item)
            case ExportedLabel():
                self._take_label(item)
            case ExportedReport():
                self.reports.setdefault(item.sop_instance_uid, item)
            case Unreadable():
                self._complain(item.path, item.reason)

    def _take_label(self, item: ExportedLabel) -> None:
        """Label and split may stand in different lines; what is empty excludes nothing.

        Of lines that contradict each other none may win by its place: neither label counts, and a
        film that any line keeps away from training is kept away.
        """
        uid = item.sop_instance_uid
        known = self.labels.get(uid, item)
        splits = {known.split, item.split} - {None}
        self.labels[uid] = replace(
            known,
            label=known.label or item.label,
            split=min(splits, key=lambda split: (split == "train", split), default=None),
        )
        if item.label and known.label not in (None, item.label):
            self.disputed_labels.add(uid)
            self._complain(item.table, f"{uid} has another label elsewhere; neither counts")
        if len(splits) > 1:
            self._complain(
                item.table,
                f"{uid} has another split elsewhere; {self.labels[uid].split} counts",
            )

    def _complain(self, path: Path, reason: str) -> None:
        self.unreadable.append((path, reason))

    def index(self) -> ExportIndex:
        """Join images with the masks, labels and reports that speak of them."""
        mask_paths: dict[str, list[Path]] = {}
        for mask in self.masks:
            for uid in mask.images & self.images.keys():
                mask_paths.setdefault(uid, []).append(mask.path)
        reported = reported_labels(list(self.reports.values()), self.images)
        return ExportIndex(
            images=tuple(
                self._completed(image, tuple(mask_paths.get(uid, ())), reported.labels.get(uid))
                for uid, image in self.images.items()
            ),
            masks=sum(not mask.images.isdisjoint(self.images) for mask in self.masks),
            reports=reported.reports,
            unreadable=(*self.unreadable, *reported.problems),
            masks_without_image=tuple(
                mask.path for mask in self.masks if mask.images.isdisjoint(self.images)
            ),
            labels_without_image=tuple(sorted(self.labels.keys() - self.images.keys())),
        )

    def _completed(
        self, image: ExportedImage, mask_paths: tuple[Path, ...], reported: str | None
    ) -> ExportedImage:
        """The image with what stands elsewhere; a table's label goes before that of a report."""
        uid = image.sop_instance_uid
        line = self.labels.get(uid)
        label, split = (line.label, line.split) if line else (None, None)
        label = None if uid in self.disputed_labels else label or reported
        return replace(image, mask_paths=mask_paths, label=label, split=split)


def read_labels(path: Path) -> Iterator[ExportedLabel | Unreadable]:
    """The lines of a ``labels.csv``."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in LABEL_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                yield Unreadable(path, f"lacks the columns {', '.join(missing)}")
                return
            for record in reader:
                yield from _label_of(record, path, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        yield Unreadable(path, f"not readable as a table: {type(cause).__name__}")


def _label_of(
    record: dict[str, str | None], path: Path, line: int
) -> Iterator[ExportedLabel | Unreadable]:
    """One line, and what is wrong with it.

    An unknown label is left out. An unknown split stays as it is: it may be a test split spelled
    in another way, whose films must not be trained on.
    """
    uid, label, split = ((record[name] or "").strip() for name in LABEL_COLUMNS)
    label, split = label.lower(), split.lower()
    if not uid:
        yield Unreadable(path, f"line {line} has no SOP Instance UID")
        return
    if label not in ("", *LABELS):
        yield Unreadable(path, f"line {line}: the label is none of {', '.join(LABELS)}")
        label = ""
    if split not in ("", *SPLITS):
        yield Unreadable(
            path,
            f"line {line}: the split is none of {', '.join(SPLITS)}; the film is not trained on",
        )
    yield ExportedLabel(uid, label or None, split or None, path)
