"""The manifest of an image folder: one row an image, with what is known of it."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicom_io.errors import ArchiveError

MANIFEST_NAME: Final = "manifest.csv"
REQUIRED_COLUMNS: Final = ("id", "image", "lung_mask", "label", "patient", "split")


@dataclass(frozen=True)
class ManifestRow:
    """One image of a manifest.

    Attributes:
        image_id: unique within its source.
        image: path of the image file.
        lung_mask: path of its mask, or None.
        label: ``normal``, ``pneumonia`` or empty.
        split: as the manifest says; may be empty.
        patient: identifier that groups images of one person.
        view: ``PA``, ``AP``, ``AP Supine`` or empty.
        sex: ``M``, ``F`` or empty.
        age: in years where it is a number; else it is kept out of the object.
        source: the institution or data set.
        licence: of the image.
    """

    image_id: str
    image: Path
    lung_mask: Path | None
    label: str
    split: str
    patient: str
    view: str
    sex: str
    age: str
    source: str
    licence: str


def read_manifest(folder_or_manifest: Path) -> list[ManifestRow]:
    """Read a manifest; paths in it are relative to its folder.

    Args:
        folder_or_manifest: a folder that holds ``manifest.csv``, or the path of such a file.

    Returns:
        Its rows in their order, as they stand there; whether their files exist is not looked at.

    Raises:
        ArchiveError: the manifest is missing, is no table, or lacks a required column.
    """
    path = folder_or_manifest
    if path.is_dir():
        path = path / MANIFEST_NAME
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in REQUIRED_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ArchiveError(f"{path} lacks the columns {', '.join(missing)}")
            return [_row(record, path.parent) for record in reader]
    except OSError as cause:
        raise ArchiveError(f"{path} cannot be read: {cause.strerror}") from cause
    except (UnicodeDecodeError, csv.Error) as cause:
        raise ArchiveError(f"{path} is not a CSV table in UTF-8: {cause}") from cause


def _row(record: dict[str, str | None], folder: Path) -> ManifestRow:
    cell = {name: (value or "").strip() for name, value in record.items() if name is not None}
    mask = cell["lung_mask"]
    return ManifestRow(
        image_id=cell["id"],
        image=folder / cell["image"],
        lung_mask=folder / mask if mask else None,
        label=cell["label"].lower(),
        split=cell["split"],
        patient=cell["patient"],
        view=cell.get("view", ""),
        sex=cell.get("sex", ""),
        age=cell.get("age", ""),
        source=cell.get("source", ""),
        licence=cell.get("licence", ""),
    )
