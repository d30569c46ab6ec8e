"""Archive exports: what a hospital's archive hands to the trainer.

    python -m dicom_io.archive create IMAGES_AND_MANIFEST OUT
    python -m dicom_io.archive check DIR [--json]

An export is a folder of any depth with DICOM files (found by content, not by name), SEG objects as
masks, and ``labels.csv`` files with the columns SOPInstanceUID, label, split. Everything is
optional but the images.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from rich.console import Console
from rich.progress import Progress

from dicom_io.archive_writer import Created, create_export, read_manifest
from dicom_io.errors import ArchiveError, MaskMismatch, MultiMixError
from dicom_io.lung_mask import (
    SEGMENTATION_CLASSES,
    lung_segments,
    read_lung_mask,
    referenced_images,
)
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES

__all__ = ["ExportIndex", "ExportedImage", "index_export", "read_lung_mask"]

LABELS_NAME: Final = "labels.csv"
_SUPINE: Final = "40199007"  # SNOMED CT, Patient Orientation Modifier
_HEADER: Final = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "Rows", "Columns",
    "InstitutionName", "Manufacturer", "ViewPosition", "PatientOrientationCodeSequence",
    "PatientSex", "PatientAge", "PixelSpacing", "SegmentSequence", "ReferencedSeriesSequence",
    "SourceImageSequence", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class ExportedImage:
    """One image of an export, as its header and ``labels.csv`` describe it.

    Attributes:
        path: of the file.
        sop_instance_uid: of the image.
        study_uid: Study Instance UID.
        patient: Patient ID; splits are made by it.
        label: ``normal``, ``pneumonia`` or None.
        split: as ``labels.csv`` says, or None.
        mask_paths: SEG files with lung segments that reference the image.
        rows: of the image.
        columns: of the image.
        source: Institution Name, or empty.
        manufacturer: or empty.
        view: ``PA``, ``AP``, ``AP Supine`` or whatever View Position says; or empty.
        sex: ``M``, ``F``, ``O`` or empty.
        age_years: or None.
        pixel_spacing_mm: Pixel Spacing (row, column), or None.
    """

    path: Path
    sop_instance_uid: str
    study_uid: str
    patient: str
    label: str | None
    split: str | None
    mask_paths: tuple[Path, ...]
    rows: int
    columns: int
    source: str
    manufacturer: str
    view: str
    sex: str
    age_years: float | None
    pixel_spacing_mm: tuple[float, float] | None


@dataclass(frozen=True)
class ExportIndex:
    """What an export holds.

    Attributes:
        images: every image of a chest-capable storage class.
        masks: number of SEG files with lung segments whose image is there.
        unreadable: (path, reason) of each DICOM file or table that cannot be used.
        masks_without_image: paths of SEG files that reference no image of the export.
        labels_without_image: SOP Instance UIDs in ``labels.csv`` that have no image.
    """

    images: tuple[ExportedImage, ...]
    masks: int
    unreadable: tuple[tuple[Path, str], ...]
    masks_without_image: tuple[Path, ...]
    labels_without_image: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing in the export needs a person's attention."""
        return not (self.unreadable or self.masks_without_image or self.labels_without_image)


@dataclass
class _Found:
    """What the walk over an export has come across so far."""

    headers: list[tuple[Path, Dataset]] = field(default_factory=list)
    masks: dict[str, list[Path]] = field(default_factory=dict)
    mask_paths: list[tuple[Path, frozenset[str]]] = field(default_factory=list)
    labels: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def index_export(folder: Path) -> ExportIndex:
    """Read the headers of an export; pixel data is left alone.

    Args:
        folder: the export, any depth.

    Raises:
        ArchiveError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is no folder; give the folder of an archive export")
    found = _Found()
    for path in _files(folder):
        if path.name == LABELS_NAME:
            _take_labels(path, found)
        elif _looks_like_dicom(path):
            _take_object(path, found)
    images, seen = [], set[str]()
    for path, header in found.headers:
        uid = str(header.SOPInstanceUID)
        if uid in seen:
            found.unreadable.append((path, "the same SOP Instance UID stands in another file too"))
            continue
        seen.add(uid)
        label, split = found.labels.get(uid, (None, None))
        images.append(_image(path, header, label, split, tuple(found.masks.get(uid, ()))))
    return ExportIndex(
        images=tuple(images),
        masks=sum(bool(references & seen) for _, references in found.mask_paths),
        unreadable=tuple(found.unreadable),
        masks_without_image=tuple(
            path for path, references in found.mask_paths if not references & seen
        ),
        labels_without_image=tuple(sorted(set(found.labels) - seen)),
    )


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in a stable order; links are not followed."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def _looks_like_dicom(path: Path) -> bool:
    """By the preamble, or by the name where a file has none."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return path.suffix.lower() == ".dcm"
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _take_labels(path: Path, found: _Found) -> None:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            label = (row["label"] or "").strip().lower() or None
            if label not in (None, "normal", "pneumonia"):
                found.unreadable.append((path, f"unknown label {label!r:.40}"))
                continue
            found.labels[row["SOPInstanceUID"].strip()] = (
                label,
                (row["split"] or "").strip() or None,
            )
    except (OSError, KeyError, AttributeError, UnicodeDecodeError, csv.Error) as cause:
        found.unreadable.append((path, f"no labels table: {type(cause).__name__}"))


def _take_object(path: Path, found: _Found) -> None:
    """Sort one DICOM file: mask, image, or neither (other objects are no one's mistake)."""
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))
        sop_class, _ = header.SOPClassUID, header.SOPInstanceUID
        if sop_class in SEGMENTATION_CLASSES:
            _take_mask(path, header, found)
        elif sop_class in CHEST_STORAGE_CLASSES:
            if header.Rows > 0 and header.Columns > 0:
                found.headers.append((path, header))
            else:
                found.unreadable.append((path, "Rows or Columns is 0"))
    except ArchiveError as problem:
        found.unreadable.append((path, str(problem)))
    except (InvalidDicomError, OSError, EOFError) as cause:
        found.unreadable.append((path, f"not readable as DICOM: {type(cause).__name__}"))
    except Exception as cause:  # noqa: BLE001 - one hostile file must not end the walk over the rest
        found.unreadable.append((path, f"damaged: {type(cause).__name__}"))


def _take_mask(path: Path, header: Dataset, found: _Found) -> None:
    if not lung_segments(header):
        raise MaskMismatch("the SEG has no lung segment")
    references = referenced_images(header)
    found.mask_paths.append((path, references))
    for uid in references:
        found.masks.setdefault(uid, []).append(path)


def _image(
    path: Path, header: Dataset, label: str | None, split: str | None, masks: tuple[Path, ...]
) -> ExportedImage:
    spacing = [float(value) for value in header.get("PixelSpacing") or ()]
    return ExportedImage(
        path=path,
        sop_instance_uid=str(header.SOPInstanceUID),
        study_uid=str(header.get("StudyInstanceUID") or ""),
        patient=str(header.get("PatientID") or ""),
        label=label,
        split=split,
        mask_paths=masks,
        rows=int(header.Rows),
        columns=int(header.Columns),
        source=str(header.get("InstitutionName") or ""),
        manufacturer=str(header.get("Manufacturer") or ""),
        view=_view(header),
        sex=str(header.get("PatientSex") or ""),
        age_years=_age_years(str(header.get("PatientAge") or "")),
        pixel_spacing_mm=(spacing[0], spacing[1]) if len(spacing) == 2 else None,
    )


def _view(header: Dataset) -> str:
    """View Position, with "Supine" where Patient Orientation Code Sequence says so."""
    view = str(header.get("ViewPosition") or "").strip().upper()
    modifiers = (
        modifier.get("CodeValue")
        for item in header.get("PatientOrientationCodeSequence") or ()
        for modifier in item.get("PatientOrientationModifierCodeSequence") or ()
    )
    return f"{view} Supine".strip() if _SUPINE in modifiers else view


def _age_years(age: str) -> float | None:
    """An AS value (PS3.5 6.2) in years."""
    match = re.fullmatch(r"(\d{3})([DWMY])", age.strip())
    if match is None:
        return None
    per_year = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
    return int(match[1]) / per_year


application = typer.Typer(add_completion=False, no_args_is_help=True)


@application.command("create")
def create_command(
    images_and_manifest: Annotated[Path, typer.Argument(help="Folder with manifest.csv.")],
    out: Annotated[Path, typer.Argument(help="Folder of the export.")],
    split: Annotated[str | None, typer.Option(help="Only rows of this split.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first rows.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; one for each core.")] = None,
) -> None:
    """Turn an image folder with a manifest into an archive export."""
    console = Console()
    try:
        rows = [r for r in read_manifest(images_and_manifest) if split in (None, r.split)][:limit]
        created = _create_with_progress(rows, out, jobs, console)
    except MultiMixError as problem:
        console.print(f"[red]{problem}[/red]", highlight=False)
        raise typer.Exit(1) from problem
    for image_id, reason in created.problems:
        console.print(f"left out {image_id}: {reason}", highlight=False, markup=False)
    console.print(f"{created.images} images and {created.masks} masks in {out}")
    if not created.images:
        raise typer.Exit(1)


def _create_with_progress(
    rows: list[Any], out: Path, jobs: int | None, console: Console
) -> Created:
    writing = create_export(rows, out, jobs)
    with Progress(console=console) as progress:
        task = progress.add_task("writing", total=len(rows))
        while True:
            try:
                progress.update(task, completed=next(writing))
            except StopIteration as end:
                created: Created = end.value
                return created


@application.command("check")
def check_command(
    folder: Annotated[Path, typer.Argument(help="Folder of the export.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count what an export holds; exit status 1 where something in it cannot be used."""
    console = Console()
    try:
        index = index_export(folder)
    except MultiMixError as problem:
        Console(stderr=True).print(f"[red]{problem}[/red]", highlight=False)
        raise typer.Exit(1) from problem
    if as_json:
        typer.echo(json.dumps(summary(index)))
    else:
        for name, value in summary(index).items():
            console.print(f"{name.replace('_', ' ')}: {value}", highlight=False, markup=False)
    if not index.is_sound:
        raise typer.Exit(1)


def summary(index: ExportIndex) -> dict[str, Any]:
    """An index as counts and lists, ready for JSON."""
    return {
        "images": len(index.images),
        "masks": index.masks,
        "studies": len({image.study_uid for image in index.images}),
        "patients": len({(image.source, image.patient) for image in index.images}),
        "labels": dict(Counter(image.label or "none" for image in index.images)),
        "splits": dict(Counter(image.split or "none" for image in index.images)),
        "unreadable": [{"path": str(path), "reason": reason} for path, reason in index.unreadable],
        "masks_without_image": [str(path) for path in index.masks_without_image],
        "labels_without_image": list(index.labels_without_image),
    }


if __name__ == "__main__":
    application()
