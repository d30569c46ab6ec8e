"""Score a model on archive exports.

    python -m model.evaluate --data EXPORT [--checkpoint MODEL] [--split test] [--json]

Masks are scored on the network's grid (the paper's way) and at the image's own size. The verdict
is scored beside the two constant answers, which beat many a published accuracy, and beside a
logistic regression on trivial features such as view, age and sharpness (``model.shortcuts``).
Labels of a source whose images are all of one class are left out where another source has both:
telling two hospitals apart is no diagnosis.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from dicom_io.archive import read_lung_mask
from dicom_io.errors import CheckpointError, TrainingError
from dicom_io.pixels import map_on_source
from model import SHIPPED_MODEL
from model.allocator import keep_freed_memory
from model.checkpoint import ModelCard
from model.command_line import chosen_device, problems_explained
from model.config import Tasks
from model.dataset import load_exports
from model.evaluation_table import print_evaluation
from model.image_table import TABLE_SIDE, ImageRecord, ImageTable
from model.metrics import (
    ClassificationScores,
    MaskScores,
    auroc,
    score_classification,
    score_mask,
)
from model.predictor import Prediction, Predictor
from model.shortcuts import ShortcutScores, find_shortcuts, score_by_shortcuts
from model.splits import one_class_sources, without_one_class_labels
from model.validation import mean_mask_scores

BATCH = 16
# A figure over fewer images says more about chance than about the group.
SMALLEST_GROUP = 20


def age_band(record: ImageRecord) -> str:
    """The band of 20 years that a patient's age falls into, or empty."""
    if record.age_years is None:
        return ""
    start = int(record.age_years) // 20 * 20
    return f"{start} to {start + 19}"


GROUPINGS: dict[str, Callable[[ImageRecord], str]] = {
    "source": lambda record: record.source,
    "view": lambda record: record.view,
    "sex": lambda record: record.sex,
    "age": age_band,
}


@dataclass(frozen=True)
class Scored:
    """One image with what the model said of it.

    Attributes:
        row: of the table.
        record: the image; its label is None where it may not be scored.
        probability: calibrated, of pneumonia.
        mask: scores on the network's grid, or None without a reference mask.
        full_size_mask: scores at the image's own size, or None.
        shortcut: score by trivial features alone, or None where nothing could be fitted.
        is_refused: whether the model's gate takes the image for no film of its kind.
    """

    row: int
    record: ImageRecord
    probability: float
    mask: MaskScores | None
    full_size_mask: MaskScores | None
    shortcut: float | None
    is_refused: bool


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
    scored = list(_score(table, records, rows, predictor, full_size, shortcuts))
    operating_point = predictor.card.calibration.operating_point
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
    classifies = learnt_tasks(predictor.card).classify

    def figures(of: Sequence[Scored]) -> dict[str, Any]:
        return _mask_figures(of) | (_class_figures(of, operating_point) if classifies else {})

    report |= figures(scored)
    for name, group_of in GROUPINGS.items():
        report[f"by_{name}"] = _by_group(scored, group_of, figures)
    return report, scored


def learnt_tasks(card: ModelCard) -> Tasks:
    """What a model was trained to do; its figures in anything else would be noise."""
    return Tasks.model_validate(card.training_config.get("tasks", {}))


def _by_group(
    scored: Sequence[Scored],
    group_of: Callable[[ImageRecord], str],
    figures: Callable[[Sequence[Scored]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """The same figures for each group of images that is large enough."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        groups[group_of(one.record)].append(one)
    return {
        name: _group_counts(members) | figures(_without_few_annotations(members))
        for name, members in sorted(groups.items())
        if name and len(members) >= SMALLEST_GROUP
    }


def _group_counts(members: Sequence[Scored]) -> dict[str, int]:
    masks = sum(one.mask is not None for one in members)
    return {"images": len(members), "masks": masks}


def _without_few_annotations(members: Sequence[Scored]) -> list[Scored]:
    """A large group may have but a few masks or labels; those few are no figure of the group."""
    masks = sum(one.mask is not None for one in members)
    labels = sum(one.record.class_index >= 0 for one in members)
    kept = list(members)
    if masks < SMALLEST_GROUP:
        kept = [replace(one, mask=None, full_size_mask=None) for one in kept]
    if labels < SMALLEST_GROUP:
        kept = [replace(one, record=replace(one.record, label=None)) for one in kept]
    return kept


def _score(
    table: ImageTable,
    records: Sequence[ImageRecord],
    rows: Sequence[int],
    predictor: Predictor,
    full_size: bool,
    shortcuts: ShortcutScores | None,
) -> Iterator[Scored]:
    """Predict in batches and compare each mask with its reference."""
    side = predictor.card.input_side
    if side > TABLE_SIDE:
        raise CheckpointError(
            f"the model reads {side} px, the preprocessed exports hold {TABLE_SIDE} px"
        )
    segments = learnt_tasks(predictor.card).segment
    for start in range(0, len(rows), BATCH):
        batch = list(rows[start : start + BATCH])
        predictions = predictor.predict_batch(table.images_at(batch, side))
        references = table.masks_at(batch, side).astype(np.bool_)
        for row, prediction, reference_hw in zip(batch, predictions, references, strict=True):
            record = records[row]
            mask = full_size_mask = None
            if record.has_mask and segments:
                predicted_hw = prediction.lung_probability_hw >= 0.5
                mask = score_mask(predicted_hw, reference_hw, record.grid_spacing_mm(side))
                if full_size:
                    full_size_mask = _score_at_full_size(record, prediction)
            shortcut = shortcuts.of_row.get(row) if shortcuts else None
            yield Scored(
                row,
                record,
                prediction.probability,
                mask,
                full_size_mask,
                shortcut,
                prediction.is_unlike_training,
            )


def _score_at_full_size(record: ImageRecord, prediction: Prediction) -> MaskScores:
    """Score the mask as the node delivers it: on the image's own pixel grid."""
    on_source = map_on_source(prediction.lung_probability_hw, record.rows, record.columns)
    return score_mask(on_source >= 0.5, _reference_mask(record), record.pixel_spacing_mm)


def _reference_mask(record: ImageRecord) -> NDArray[np.bool_]:
    return read_lung_mask(tuple(map(Path, record.mask_paths)), record)


def _mask_figures(scored: Sequence[Scored]) -> dict[str, float | None]:
    """Mean mask scores, on the network's grid and, with a suffix, at full size."""
    masks = [s.mask for s in scored if s.mask is not None]
    if not masks:
        return {}
    figures = _mean_scores(masks, suffix="")
    figures["empty_masks"] = mean_mask_scores(masks)["empty_masks"]
    full = [s.full_size_mask for s in scored if s.full_size_mask is not None]
    return figures | _mean_scores(full, suffix="_full_size") if full else figures


def _mean_scores(masks: Sequence[MaskScores], suffix: str) -> dict[str, float | None]:
    """Each figure's mean over the masks that have it, or None."""
    means = mean_mask_scores(masks)
    return {name + suffix: means.get(name) for name in MaskScores.__dataclass_fields__}


def _class_figures(scored: Sequence[Scored], operating_point: float) -> dict[str, Any]:
    """Figures of the verdict, with the constant answers and the shortcuts' AUROC beside them."""
    labelled = [s for s in scored if s.record.class_index >= 0]
    if not labelled:
        return {}
    labels = np.array([s.record.class_index for s in labelled])
    probabilities = np.array([s.probability for s in labelled])
    scores: ClassificationScores = score_classification(probabilities, labels, operating_point)
    figures: dict[str, Any] = asdict(scores)
    figures["labelled_images"] = figures.pop("images")
    figures["operating_point"] = operating_point
    shortcuts = np.array([s.shortcut for s in labelled if s.shortcut is not None])
    figures["shortcut_auroc"] = auroc(shortcuts, labels) if len(shortcuts) == len(labels) else None
    figures["accuracy_always_normal"] = float((labels == 0).mean())
    figures["accuracy_always_pneumonia"] = float((labels == 1).mean())
    return figures


def main(
    data: Annotated[list[Path], typer.Option(help="Archive export; may be given several times.")],
    checkpoint: Annotated[Path, typer.Option(help="Model directory.")] = SHIPPED_MODEL,
    split: Annotated[str | None, typer.Option(help="train, val or test; all if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed exports.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
) -> None:
    """Score a model on archive exports."""
    keep_freed_memory()
    messages = Console(stderr=True)
    with problems_explained(messages):
        table = load_exports(data, cache)
        for path, reason in table.problems:
            messages.print(
                f"left out {path}: {reason}", soft_wrap=True, highlight=False, markup=False
            )
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
