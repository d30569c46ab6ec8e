"""Archive exports: what a hospital's archive hands to the trainer.

    python -m dicom_io.archive create IMAGES_AND_MANIFEST OUT
    python -m dicom_io.archive check DIR [--json]

The command line, and the face of ``archive_index`` and ``lung_mask`` for programs.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from dicom_io.archive_index import ExportIndex, index_export, walk_export
from dicom_io.archive_items import ExportedImage
from dicom_io.archive_writer import Created, create_export, read_manifest
from dicom_io.errors import MultiMixError
from dicom_io.lung_mask import read_lung_mask

__all__ = ["ExportIndex", "ExportedImage", "index_export", "read_lung_mask", "walk_export"]

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
