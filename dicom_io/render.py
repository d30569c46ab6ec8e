"""Show what was made without a viewer.

    python -m dicom_io.render RESULT_OR_STUDY OUT.png [--source RADIOGRAPH]

A result is drawn over its radiograph where that lies beside it. A folder becomes one row for each
radiograph: the film with each segmentation and presentation state that refers to it, then the
secondary captures and reports.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_io.errors import ArchiveError, ImageRejected
from dicom_io.panels import document_panel, film_panel, lone_panel, picture_panel
from dicom_io.pixels import require_readable_image
from dicom_io.uids import STORAGE_CLASSES, ResultKind

PANEL_HEIGHT: Final = 1024
MOST_ROWS: Final = 20
OUTLINED: Final = frozenset(
    STORAGE_CLASSES[kind]
    for kind in (
        ResultKind.SEGMENTATION,
        ResultKind.LABEL_MAP_SEGMENTATION,
        ResultKind.PRESENTATION_STATE,
    )
)


@dataclass
class Row:
    """What is shown side by side.

    Attributes:
        source: the radiograph; None if it is not at hand.
        results: everything that refers to it.
    """

    source: Dataset | None
    results: list[Dataset] = field(default_factory=list)


def main(
    path: Annotated[Path, typer.Argument(help="A result object, or the folder of a study.")],
    out: Annotated[Path, typer.Argument(help="The picture to write.")],
    source: Annotated[Path | None, typer.Option(help="The radiograph of the result.")] = None,
) -> None:
    """Draw a result or a study into one PNG."""
    try:
        sheet = render([path, source or source_beside(path) or path])
    except ArchiveError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, format="PNG")
    typer.echo(f"{out} ({sheet.width} x {sheet.height})")


def render(paths: Iterable[Path]) -> Image.Image:
    """Draw all DICOM objects at some paths.

    Args:
        paths: files, or folders that are searched to any depth.

    Returns:
        One picture, one row for each radiograph.

    Raises:
        ArchiveError: nothing there can be drawn.
    """
    paths = list(paths)
    rows = arrange(read_objects(paths))
    strips = [strip for strip in map(_strip, rows[:MOST_ROWS]) if strip is not None]
    if not strips:
        raise ArchiveError(f"nothing to draw in {', '.join(map(str, paths))}")
    sheet = Image.new("RGB", (max(strip.width for strip in strips), PANEL_HEIGHT * len(strips)))
    for number, strip in enumerate(strips):
        sheet.paste(strip, (0, number * PANEL_HEIGHT))
    return sheet


def read_objects(paths: Iterable[Path]) -> list[Dataset]:
    """All DICOM objects in files and folders, in the order of their paths; other files are skipped.

    Raises:
        ArchiveError: a path does not exist.
    """
    files: list[Path] = []
    for path in dict.fromkeys(paths):
        if not path.exists():
            raise ArchiveError(f"{path} does not exist")
        files += sorted(found for found in path.rglob("*") if found.is_file()) or [path]
    objects: list[Dataset] = []
    for file in files:
        try:
            dataset = dcmread(file)
        except (InvalidDicomError, OSError, EOFError):
            continue
        if dataset.get("SOPInstanceUID") and dataset.get("SOPClassUID"):
            objects.append(dataset)
    return objects


def source_beside(path: Path) -> Path | None:
    """The radiograph of a result if it lies in the same folder, else None."""
    if not path.is_file():
        return None
    wanted = {uid for dataset in read_objects([path]) for uid in _referenced(dataset)}
    for file in sorted(path.parent.iterdir()):
        try:
            header = dcmread(file, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError):
            continue
        if file != path and str(header.get("SOPInstanceUID")) in wanted:
            return file
    return None


def arrange(objects: Iterable[Dataset]) -> list[Row]:
    """Group results with the radiograph that they refer to; those without one come last."""
    objects = list(objects)
    rows = {
        str(dataset.SOPInstanceUID): Row(dataset) for dataset in objects if _is_radiograph(dataset)
    }
    orphans: dict[str, Row] = {}
    for dataset in objects:
        if _is_radiograph(dataset):
            continue
        references = list(_referenced(dataset))
        known = [uid for uid in references if uid in rows]
        if known:
            rows[known[0]].results.append(dataset)
        elif references:
            orphans.setdefault(references[0], Row(None)).results.append(dataset)
    return [*rows.values(), *orphans.values()]


def _is_radiograph(dataset: Dataset) -> bool:
    if dataset.SOPClassUID in OUTLINED:
        return False
    try:
        require_readable_image(dataset)
    except ImageRejected:
        return False
    return True


def _referenced(dataset: Dataset) -> Iterable[str]:
    """SOP Instance UIDs that an object refers to, nearest to its root first."""
    for keyword in ("SourceImageSequence", "ReferencedSeriesSequence", "ContentSequence"):
        for item in dataset.get(keyword) or ():
            for element in item.iterall():
                if element.keyword == "ReferencedSOPInstanceUID":
                    yield str(element.value)


def _strip(row: Row) -> Image.Image | None:
    """The panels of a row side by side, all of one height."""
    outlined = [result for result in row.results if result.SOPClassUID in OUTLINED]
    panels: list[Image.Image] = []
    try:
        if row.source is not None:
            drawn: list[Dataset | None] = [*outlined] or [None]
            panels += [film_panel(row.source, result) for result in drawn]
    except ImageRejected:
        panels = []
    if not panels:
        panels = [lone_panel(result) for result in outlined]
    for result in row.results:
        if result.get("SamplesPerPixel") == 3:
            panels.append(picture_panel(result))
        elif "ContentSequence" in result:
            panels.append(document_panel(result))
    if not panels:
        return None
    panels = [
        panel.resize((max(1, round(panel.width * PANEL_HEIGHT / panel.height)), PANEL_HEIGHT))
        for panel in panels
    ]
    strip = Image.new("RGB", (sum(panel.width for panel in panels), PANEL_HEIGHT))
    x = 0
    for panel in panels:
        strip.paste(panel, (x, 0))
        x += panel.width
    return strip


if __name__ == "__main__":
    typer.run(main)
