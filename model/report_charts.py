"""The charts of a run's report: curves over the training, and how good the probabilities are."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.metrics import CALIBRATION_BINS, calibration_bins

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MODEL_COLOUR: Final = "#1b6ca8"
OTHER_COLOUR: Final = "#9a9a9a"
WRONG_COLOUR: Final = "#c8553d"
SMALLEST_LOSS: Final = 1e-4
LOWEST_QUARTER: Final = 0.25
SHOWN_FIGURES: Final = ("dice", "auroc", "balanced_accuracy", "score")
# Beside the terms of the loss in ``metrics.csv``, and a share like the figures above.
PSEUDO_LABELLED: Final = "mean_pseudo_labelled"


def training_curves(metrics: Sequence[dict[str, float]]) -> Figure:
    """Mean loss terms, held-out figures and pseudo-labels against the step of each validation."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    losses, held_out = figure.subplots(1, 2)
    means = {name for row in metrics for name in row if name.startswith("mean_")}
    for name in sorted(means - {PSEUDO_LABELLED}):
        _curve(losses, metrics, name, label=name.removeprefix("mean_").replace("_", " "))
    # Terms of unlabelled images are a hundredth of the others; a linear axis shows them as zero.
    losses.set_yscale("symlog", linthresh=SMALLEST_LOSS)
    losses.set_ylim(bottom=0)
    for name in SHOWN_FIGURES:
        _curve(held_out, metrics, name, label=name.replace("_", " "))
    _curve(held_out, metrics, PSEUDO_LABELLED, label="pseudo-labels that count")
    losses.set(xlabel="step", ylabel="mean loss", title="Loss terms")
    held_out.set(xlabel="step", title="Held-out patients")
    for axes in (losses, held_out):
        if axes.lines:
            axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        _plain(axes)
    return figure


def _curve(axes: Any, metrics: Sequence[dict[str, float]], name: str, label: str) -> None:
    points = [(row["step"], row[name]) for row in metrics if name in row and "step" in row]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.4, label=label)


def roc_curve(scores: Floats, labels: Ints) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1).

    Args:
        scores: the larger the more like pneumonia, (images,).
        labels: 0 or 1, (images,), both present.
    """
    order = np.argsort(-scores, kind="stable")
    # Films of the same score pass a threshold together.
    is_last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits, alarms = np.cumsum(labels[order] == 1), np.cumsum(labels[order] == 0)
    true_rate = np.append(0.0, hits[is_last_of_tie] / hits[-1])
    false_rate = np.append(0.0, alarms[is_last_of_tie] / alarms[-1])
    return false_rate, true_rate


def roc_chart(
    probabilities: Floats,
    labels: Ints,
    operating_point: float,
    areas: tuple[float | None, float | None],
    shortcuts: Floats | None,
) -> Figure:
    """The ROC curve with the operating point, beside that of trivial features alone.

    Args:
        probabilities: of the model, (images,).
        labels: 0 or 1, (images,), both present.
        operating_point: threshold of the verdict.
        areas: AUROC of the model and of the shortcuts.
        shortcuts: scores by trivial features alone, (images,), or None.
    """
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=OTHER_COLOUR, linewidth=0.8, linestyle=":")
    if shortcuts is not None:
        label = f"trivial features alone, {_area(areas[1])}"
        axes.plot(*roc_curve(shortcuts, labels), color=OTHER_COLOUR, linewidth=1.4, label=label)
    label = f"model, {_area(areas[0])}"
    axes.plot(*roc_curve(probabilities, labels), color=MODEL_COLOUR, linewidth=2, label=label)
    verdicts = probabilities >= operating_point
    point = (verdicts[labels == 0].mean(), verdicts[labels == 1].mean())
    axes.plot(*point, "o", color=WRONG_COLOUR, label=f"operating point {operating_point:.2f}")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _area(value: float | None) -> str:
    return "no AUROC" if value is None else f"AUROC {value:.3f}"


def reliability_chart(probabilities: Floats, labels: Ints, ece: float) -> Figure:
    """Observed against claimed frequency of pneumonia in the bins of the ECE, with their films."""
    figure, axes = _square()
    which = calibration_bins(probabilities)
    bins = np.unique(which)
    claimed = [probabilities[which == number].mean() for number in bins]
    observed = [labels[which == number].mean() for number in bins]
    counts = [int((which == number).sum()) for number in bins]
    shares = np.array(counts) / len(labels)
    width = 1 / CALIBRATION_BINS
    axes.bar((bins + 0.5) * width, shares, width * 0.9, color="#dfe7ee", label="share of films")
    axes.plot([0, 1], [0, 1], color=OTHER_COLOUR, linewidth=0.8, linestyle=":")
    axes.plot(claimed, observed, "o-", color=MODEL_COLOUR, linewidth=1.6, label="observed")
    for x, y, count in zip(claimed, observed, counts, strict=True):
        beside = (5, 5) if y < LOWEST_QUARTER else (5, -10)  # never below the axis
        axes.annotate(str(count), (x, y), textcoords="offset points", xytext=beside, fontsize=7)
    axes.set(
        xlabel="claimed probability",
        ylabel="observed frequency",
        title=f"Reliability, ECE {ece:.3f}",
    )
    # Points may lie anywhere inside the axes.
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def confusion_matrix(verdicts: NDArray[np.bool_], labels: Ints) -> Ints:
    """Films by label (rows: normal, pneumonia) and verdict (columns), int64, (2, 2)."""
    return np.bincount(2 * labels + verdicts, minlength=4).reshape(2, 2)


def confusion_chart(verdicts: NDArray[np.bool_], labels: Ints) -> Figure:
    """The confusion matrix, coloured by the share of each label's films."""
    counts = confusion_matrix(verdicts, labels)
    figure = Figure(figsize=(3.7, 3.6), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (label, verdict), count in np.ndenumerate(counts):
        colour = "white" if shares[label, verdict] > 0.5 else "black"
        text = f"{count}\n{shares[label, verdict]:.0%}"
        axes.text(verdict, label, text, ha="center", va="center", color=colour)
    names = ["normal", "pneumonia"]
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.set(xlabel="verdict", ylabel="label", title="Verdicts")
    return figure


def dice_chart(dices: Floats) -> Figure:
    """How the Dice coefficients of the masks are spread."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    low = min(0.9, float(np.floor(dices.min() * 20) / 20))
    axes.hist(dices, bins=np.linspace(low, 1.0, 26).tolist(), color=MODEL_COLOUR)
    median = float(np.median(dices))
    axes.axvline(median, color=WRONG_COLOUR, linewidth=1.2, label=f"median {median:.3f}")
    axes.set(xlabel="Dice", ylabel="films", title="Lung masks")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _plain(axes)
    return figure


def _square() -> tuple[Figure, Any]:
    figure = Figure(figsize=(3.7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
