"""Score a model on archive exports.

    python -m model.evaluate --data EXPORT [--checkpoint MODEL] [--split test] [--json]

Masks are scored at 256 x 256 (the paper's way; also those of a network that reads fewer pixels)
and at the image's own size. The verdict is scored beside the two constant answers, which beat many
a published accuracy, and beside a logistic regression on trivial features such as view, age and
sharpness (``model.shortcuts``).
Labels of a source whose images are all of one class are left out where another source has both:
telling two hospitals apart is no diagnosis.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dicom_io.errors import TrainingError
from model import SHIPPED_MODEL
from model.allocator import keep_freed_memory
from model.checkpoint import learnt_tasks
from model.command_line import Device, chosen_device, problems_explained
from model.dataset import load_exports
from model.evaluation_table import print_evaluation
from model.group_figures import GROUPINGS, grouped_figures
from model.image_scores import Scored, score_images
from model.image_table import ImageTable
from model.predictor import Predictor
from model.shortcuts import find_shortcuts, score_by_shortcuts
from model.splits import one_class_sources, without_one_class_labels


def evaluate(
    table: ImageTable, predictor: Predictor, *, split: str | None = None, full_size: bool = True
) -> dict[str, Any]:
    """Score every image of a split.

    Args:
        table: images, masks and labels.
        predictor: the model.
        split: which split; None for all.
        full_size: also score masks at the size of their images, which reads every SEG again.

    Returns:
        A JSON-ready object: ``images``, ``masks``, then the figures that labels and masks allow.

    Raises:
        TrainingError: the split is empty.
    """
    found = sorted({record.split or "none" for record in table.records})
    rows = [row for row, r in enumerate(table.records) if split in (None, r.split)]
    if not rows:
        raise TrainingError(f"no image of split {split!r}; the export has {', '.join(found)}")
    report, _ = evaluate_rows(table, rows, predictor, full_size=full_size)
    return {"split": split} | report


def evaluate_rows(
    table: ImageTable, rows: Sequence[int], predictor: Predictor, *, full_size: bool
) -> tuple[dict[str, Any], list[Scored]]:
    """Score some rows of a table.

    Args:
        table: images, masks and labels.
        rows: which images; at least one.
        predictor: the model.
        full_size: also score masks at the size of their images.

    Returns:
        The figures as ``evaluate`` gives them, and each image's own.
    """
    records = without_one_class_labels(table.records)
    classes = [record.class_index for record in records]
    shortcuts = score_by_shortcuts(table, rows, classes)
    alone = find_shortcuts(table, rows, classes)
    scored = list(score_images(table, records, rows, predictor, full_size, shortcuts))
    report: dict[str, Any] = {
        "images": len(scored),
        "masks": sum(s.mask is not None for s in scored),
        "model": f"{predictor.card.name} {predictor.card.version}",
        "weights_sha256": predictor.card.weights_sha256,
        "one_class_sources_not_scored": sorted(one_class_sources(table.records)),
        "shortcuts_fitted_on": shortcuts.fitted_on if shortcuts else None,
        "shortcut_auroc_of": alone.auroc_of if alone else {},
    }
    if predictor.card.gate is not None:
        report["share_refused_by_gate"] = sum(s.is_refused for s in scored) / len(scored)
    operating_point = predictor.card.calibration.operating_point
    report |= grouped_figures(scored, learnt_tasks(predictor.card), operating_point)
    return report, scored


def main(
    data: Annotated[list[Path], typer.Option(help="Archive export; may be given several times.")],
    checkpoint: Annotated[Path, typer.Option(help="Model directory.")] = SHIPPED_MODEL,
    split: Annotated[str | None, typer.Option(help="train, val or test; all if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed exports.")] = None,
    device: Device = "auto",
) -> None:
    """Score a model on archive exports."""
    keep_freed_memory()
    messages = Console(stderr=True)
    with problems_explained(messages):
        table = load_exports(data, cache, console=messages)
        if split is None and any(record.split == "train" for record in table.records):
            messages.print(
                "[yellow]warning: without --split the train split is scored too, which a model may "
                "have learnt by heart[/yellow]",
                soft_wrap=True,
            )
        report = evaluate(table, Predictor.load(checkpoint, chosen_device(device)), split=split)
    if as_json:
        typer.echo(json.dumps(report))
        return
    print_evaluation(report, GROUPINGS, Console())


if __name__ == "__main__":
    typer.run(main)
