"""Archive exports: what a hospital's archive hands to the trainer.

    python -m dicom_io.archive create IMAGES_AND_MANIFEST OUT
    python -m dicom_io.archive check DIR [--json]

The command line, and the face of ``archive_index`` and ``lung_mask`` for programs.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from dicom_io.archive_file import ExportFile, export_files, read_dataset
from dicom_io.archive_index import (
    LABELS,
    LABELS_NAME,
    ExportContents,
    ExportIndex,
    index_export,
    read_labels,
    walk_export,
)
from dicom_io.archive_items import (
    ExportedImage,
    ExportedMask,
    ExportedReport,
    ExportItem,
    Unreadable,
)
from dicom_io.archive_object import read_object
from dicom_io.archive_writer import Created, create_export
from dicom_io.errors import MultiMixError
from dicom_io.lung_mask import read_lung_mask
from dicom_io.manifest import ManifestRow, read_manifest

__all__ = [
    "LABELS_NAME",
    "ExportContents",
    "ExportFile",
    "ExportIndex",
    "ExportItem",
    "ExportedImage",
    "ExportedMask",
    "ExportedReport",
    "Unreadable",
    "export_files",
    "index_export",
    "read_dataset",
    "read_labels",
    "read_lung_mask",
    "read_object",
    "walk_export",
]

application = typer.Typer(add_completion=False, no_args_is_help=True)


@application.command("create")
def create_command(
    images_and_manifest: Annotated[
        Path, typer.Argument(help="Folder with manifest.csv, or the path of such a file.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the export.")],
    split: Annotated[str | None, typer.Option(help="Only rows of this split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many rows.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; one for each core.")] = None,
    strict: Annotated[bool, typer.Option(help="Fail if any row cannot be used in full.")] = False,
) -> None:
    """Turn an image folder with a manifest into an archive export."""
    console = Console(soft_wrap=True)
    with _problems_explained():
        rows = [row for row in read_manifest(images_and_manifest) if split in (None, row.split)]
        created = _create_with_progress(rows[:limit], out, jobs, console)
    for image_id, reason in created.problems:
        console.print(f"{image_id}: {reason}", highlight=False, markup=False)
    console.print(
        f"{created.images} images and {created.masks} masks in {out}, "
        f"{len(created.problems)} rows with a problem",
        highlight=False,
        markup=False,
    )
    if not created.images or (strict and created.problems):
        raise typer.Exit(1)


@application.command("check")
def check_command(
    folder: Annotated[Path, typer.Argument(help="Folder of the export.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count what an export holds; exit status 1 where something in it cannot be used."""
    with _problems_explained():
        index = index_export(folder)
    if as_json:
        typer.echo(json.dumps(summary(index)))
    else:
        _print_report(folder, index)
    if not index.is_sound:
        raise typer.Exit(1)


def summary(index: ExportIndex) -> dict[str, Any]:
    """An index as counts and lists, ready for JSON.

    Returns:
        ``images``, ``masks``, ``reports``, ``studies`` and ``patients`` as counts, ``labels`` and
        ``splits`` as counts by value, ``labels_by_split`` as counts by split and label, and the
        lists ``unreadable``, ``masks_without_image`` and ``labels_without_image``.
    """
    by_split: dict[str, Counter[str]] = {}
    for image in index.images:
        by_split.setdefault(image.split or "none", Counter())[image.label or "none"] += 1
    return {
        "images": len(index.images),
        "masks": index.masks,
        "reports": index.reports,
        "studies": len({image.study_uid for image in index.images}),
        "patients": len({(image.source, image.patient) for image in index.images}),
        "labels": dict(Counter(image.label or "none" for image in index.images)),
        "splits": dict(Counter(image.split or "none" for image in index.images)),
        "labels_by_split": {split: dict(labels) for split, labels in by_split.items()},
        "unreadable": [{"path": str(path), "reason": reason} for path, reason in index.unreadable],
        "masks_without_image": [str(path) for path in index.masks_without_image],
        "labels_without_image": list(index.labels_without_image),
    }


def _create_with_progress(
    rows: list[ManifestRow], out: Path, jobs: int | None, console: Console
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


def _print_report(folder: Path, index: ExportIndex) -> None:
    """The summary for a person: a table of counts, then a line for each thing that is wrong."""
    console, facts = Console(soft_wrap=True), summary(index)
    counts = ", ".join(
        f"{facts[name]} {name}" for name in ("studies", "patients", "masks", "reports")
    )
    console.print(f"{folder}: {facts['images']} images, {counts}", highlight=False, markup=False)
    labels = (*LABELS, "none")
    table = Table("split", *(Column(label, justify="right") for label in labels))
    for split, by_label in sorted(facts["labels_by_split"].items()):
        table.add_row(escape(split), *(str(by_label.get(label, 0)) for label in labels))
    console.print(table)
    wrong = [f"{path}: {reason}" for path, reason in index.unreadable]
    wrong += [f"{path}: a mask without its image" for path in index.masks_without_image]
    wrong += [f"{uid}: a label without its image" for uid in index.labels_without_image]
    for line in wrong:
        console.print(line, style="red", highlight=False, markup=False)
    if not wrong:
        console.print("nothing is wrong", style="green", highlight=False)


@contextmanager
def _problems_explained() -> Iterator[None]:
    """What we know to go wrong ends with its message and status 1, not with a traceback."""
    try:
        yield
    except MultiMixError as problem:
        Console(stderr=True, soft_wrap=True).print(
            str(problem), style="red", highlight=False, markup=False
        )
        raise typer.Exit(1) from problem


if __name__ == "__main__":
    application()
