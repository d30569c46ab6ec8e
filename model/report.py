"""Write what a training run came to as one HTML page.

    python -m model.report RUN --data EXPORT [--data EXPORT ...] [--split test]

RUN/report.html needs no other file: curves of the training, ROC beside that of trivial features,
reliability, verdicts, figures by source, view, sex and age, the worst ten and the median lung
masks, and saliency. It is about the patients that the run held out, or about a split of the
exports. The page shows films: treat it like the exports themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from dicom_io.errors import TrainingError
from model.allocator import keep_freed_memory
from model.command_line import Device, chosen_device, problems_explained
from model.dataset import load_exports
from model.evaluate import evaluate_rows
from model.group_figures import GROUPINGS
from model.image_scores import Scored
from model.image_table import ImageTable
from model.learnt_data import learnt_rows
from model.predictor import Predictor
from model.private_file import private
from model.report_charts import (
    confusion_chart,
    dice_chart,
    reliability_chart,
    roc_chart,
    training_curves,
)
from model.report_examples import mask_pictures, saliency_examples
from model.report_page import Image, details, images, page, section, table, warning
from model.report_pictures import mask_sheet, saliency_sheet
from model.run_folder import read_config, read_metrics
from model.shortcuts import SUSPICIOUS_AUROC
from model.split_file import pools_of_run

WORST_MASKS = 10
MEDIAN_MASKS = 5

CLASS_FIGURES = (
    "auroc",
    "labelled_images",
    "shortcut_auroc",
    "accuracy",
    "balanced_accuracy",
    "f1_normal",
    "f1_pneumonia",
    "sensitivity_at_90_specificity",
    "ece",
)
MASK_FIGURES = (
    "dice",
    "iou",
    "ssim",
    "hausdorff_px",
    "hd95_px",
    "average_surface_distance_px",
    "hausdorff_mm",
    "hd95_mm",
    "average_surface_distance_mm",
    "empty_masks",
    "dice_full_size",
    "iou_full_size",
    "hausdorff_px_full_size",
    "hd95_px_full_size",
    "hd95_mm_full_size",
)


def write_report(
    run: Path,
    exports: ImageTable,
    *,
    split: str | None = None,
    device: str = "cpu",
    full_size: bool = True,
) -> Path:
    """Write ``report.html`` into a run's folder.

    Args:
        run: folder of a training run with a model.
        exports: what it was trained on, or another archive where ``split`` is given.
        split: report on this split; None for the patients that the run held out.
        device: torch device.
        full_size: also score masks at the size of their images, which reads every SEG again.

    Returns:
        The page.

    Raises:
        CheckpointError: the run has no model yet.
        TrainingError: no image to report on, or other exports than those of the run.
    """
    config = read_config(run)
    predictor = Predictor.load(run / "model", device)
    rows = rows_to_report(run, exports, predictor.card.training_data_sha256, split)
    figures, scored = evaluate_rows(exports, rows, predictor, full_size=full_size)
    sections = [section("Training", images(Image(training_curves(read_metrics(run)), "curves")))]
    if config.tasks.classify:
        sections += classification_sections(exports, figures, scored, predictor)
    if config.tasks.segment:
        sections += mask_sections(exports, figures, scored, predictor)
    sections.append(details("Every hyperparameter", config.model_dump_json(indent=2)))
    about = f"split {split}" if split else "patients held out from training"
    sections[:0] = [warning(text) for text in _what_to_mind(split)]
    text = page(
        f"{figures['model']}: {run.resolve().name}",
        f"{figures['images']} films, {about}; weights {figures['weights_sha256'][:12]}. "
        "This page shows films of patients: keep it where the exports are kept.",
        sections,
    )
    unfinished = run / "report.html.part"
    with open(unfinished, "w", encoding="utf-8", opener=private) as file:
        file.write(text)
    return unfinished.replace(run / "report.html")


def _what_to_mind(split: str | None) -> list[str]:
    """Why figures about these films flatter the model, where they do."""
    if split is None:
        return [
            "The patients held out chose the checkpoint, the calibration and the operating point, "
            "so these figures are better than those of other patients will be; --split test "
            "reports on films that had no say, where the exports have such a split."
        ]
    if split == "train":
        return ["The model may have learnt films of the train split by heart."]
    return []


def rows_to_report(
    run: Path, exports: ImageTable, training_data_sha256: str, split: str | None
) -> list[int]:
    """The rows of a split, or those of the patients that a run held out.

    Raises:
        TrainingError: there are none, or who was held out cannot be told from these exports.
    """
    if split is not None:
        rows = [row for row, record in enumerate(exports.records) if record.split == split]
        if not rows:
            raise TrainingError(f"no image of split {split!r}; leave --split out for held-out ones")
        return rows
    config = read_config(run)
    pools = pools_of_run(run, exports.records, config)
    # Of other exports it cannot be told who was held out.
    advice = "give the same --data, or a --split"
    learnt_rows(run, exports, pools, config, training_data_sha256, advice)
    if not pools.validation:
        raise TrainingError("the run held nobody out; report on a --split")
    return list(pools.validation)


def classification_sections(
    exports: ImageTable, figures: dict[str, Any], scored: Sequence[Scored], predictor: Predictor
) -> list[str]:
    """Figures, charts and saliency of the verdict; a sentence where no label allows any."""
    labelled = [s for s in scored if s.record.class_index >= 0]
    labels = np.array([s.record.class_index for s in labelled], dtype=np.int64)
    if len(np.unique(labels)) < 2:
        return [section("Pneumonia", warning("Labels of both classes are needed; one is missing."))]
    probabilities = np.array([s.probability for s in labelled])
    known = [s.shortcut for s in labelled if s.shortcut is not None]
    shortcuts = np.array(known) if len(known) == len(labelled) else None
    threshold = predictor.card.calibration.operating_point
    areas = (figures["auroc"], figures["shortcut_auroc"])
    charts = images(
        Image(roc_chart(probabilities, labels, threshold, areas, shortcuts), "ROC curve"),
        Image(reliability_chart(probabilities, labels, figures["ece"]), "reliability diagram"),
        Image(confusion_chart(probabilities >= threshold, labels), "confusion matrix"),
    )
    examples = saliency_sheet(saliency_examples(exports, labelled, threshold, predictor))
    return [
        section("Pneumonia", figure_table(figures, CLASS_FIGURES), charts),
        section(
            "Shortcuts",
            *shortcut_warning(figures),
            shortcut_table(figures["shortcut_auroc_of"]),
            note="How well features that are no finding predict the label; the regression on all "
            f"of them was fitted on {figures['shortcuts_fitted_on'] or 'nothing: too few labels'}.",
        ),
        section(
            "Saliency",
            images(Image(examples, "films with saliency", "png")),
            note="The most certain verdicts of each kind. Saliency shows where the input moves "
            "the answer, not where disease is.",
        ),
    ]


def shortcut_warning(figures: dict[str, Any]) -> list[str]:
    """A warning where a model does not beat trivial features, or they predict too well."""
    area, models = figures["shortcut_auroc"], figures["auroc"]
    if area is None or (area <= SUSPICIOUS_AUROC and area < models):
        return []
    advice = (
        "judge it within each view and source."
        if area < models
        else "nothing shows that it looks for disease."
    )
    return [
        warning(
            f"Trivial features alone reach an AUROC of {area:.3f}, the model {models:.3f}; {advice}"
        )
    ]


def shortcut_table(auroc_of: dict[str, float]) -> str:
    """Each feature alone, the strongest first, or a sentence."""
    if not auroc_of:
        return warning("Too few labels of a class to tell how far one feature predicts them.")
    strongest = sorted(auroc_of.items(), key=lambda item: -item[1])
    return table(["alone", "AUROC"], {name: [area] for name, area in strongest})


def mask_sections(
    exports: ImageTable, figures: dict[str, Any], scored: Sequence[Scored], predictor: Predictor
) -> list[str]:
    """Figures and pictures of the lung masks; a sentence where there is no reference."""
    ranked = sorted(
        ((s.mask.dice, s) for s in scored if s.mask is not None), key=lambda pair: pair[0]
    )
    if not ranked:
        return [section("Lung masks", warning("No film of these has a reference mask."))]
    masked = [s for _, s in ranked]
    first = max((len(masked) - MEDIAN_MASKS) // 2, 0)
    contours = "Green: reference. Orange: prediction."
    dices = dice_chart(np.array([dice for dice, _ in ranked]))
    return [
        section(
            "Lung masks",
            figure_table(figures, MASK_FIGURES),
            images(Image(dices, "histogram of Dice")),
        ),
        *(
            section(heading, images(Image(mask_sheet(pictures), heading, "png")), note=contours)
            for heading, pictures in (
                ("The worst masks", mask_pictures(exports, masked[:WORST_MASKS], predictor)),
                (
                    "Median masks",
                    mask_pictures(exports, masked[first : first + MEDIAN_MASKS], predictor),
                ),
            )
        ),
    ]


def figure_table(figures: dict[str, Any], names: Sequence[str]) -> str:
    """Figures of all films, and of each group that is large enough and has the first of them."""
    shown = [name for name in names if figures.get(name) is not None]
    rows = {"all": [figures[name] for name in shown]}
    for grouping in GROUPINGS:
        for group, values in figures[f"by_{grouping}"].items():
            if values.get(names[0]) is not None:
                rows[f"{grouping}: {group}"] = [values.get(name) for name in shown]
    return table(["", *(name.replace("_", " ") for name in shown)], rows)


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    data: Annotated[list[Path], typer.Option(help="Archive export; may be given several times.")],
    split: Annotated[
        str | None, typer.Option(help="val or test; the held-out patients if left out.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed exports.")] = None,
    device: Device = "auto",
) -> None:
    """Write what a training run came to as one HTML page."""
    keep_freed_memory()
    console = Console()
    with problems_explained(console):
        path = write_report(
            run, load_exports(data, cache), split=split, device=chosen_device(device)
        )
    console.print(f"{path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
