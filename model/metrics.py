"""The figures that a model is judged by; pure functions of arrays.

Classification: accuracy, F1 of each class, balanced accuracy, AUROC, sensitivity at 90 %
specificity, expected calibration error. Segmentation, on one hard mask at a time: Dice, Jaccard,
Hausdorff distance and its 95th percentile, average surface distance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassificationScores:
    """How well a classifier did; None where the labels allow no figure (one class only)."""

    images: int
    accuracy: float
    balanced_accuracy: float | None
    f1_normal: float | None
    f1_pneumonia: float | None
    auroc: float | None
    sensitivity_at_90_specificity: float | None
    ece: float


@dataclass(frozen=True)
class MaskScores:
    """How well one mask fits another; distances in pixels, None where a mask is empty."""

    dice: float
    iou: float
    hausdorff_px: float | None
    hd95_px: float | None
    average_surface_distance_px: float | None


def score_classification(
    probabilities: Floats, labels: NDArray[np.int64], operating_point: float
) -> ClassificationScores:
    """Score calibrated probabilities of pneumonia.

    Args:
        probabilities: in [0, 1], (images,).
        labels: 0 normal or 1 pneumonia, (images,).
        operating_point: probability at and above which the verdict is pneumonia.
    """
    verdicts = (probabilities >= operating_point).astype(np.int64)
    has_both = len(np.unique(labels)) == 2
    recalls = [float((verdicts[labels == c] == c).mean()) for c in np.unique(labels)]
    return ClassificationScores(
        images=len(labels),
        accuracy=float((verdicts == labels).mean()),
        balanced_accuracy=float(np.mean(recalls)) if has_both else None,
        f1_normal=f1_of_class(verdicts, labels, 0),
        f1_pneumonia=f1_of_class(verdicts, labels, 1),
        auroc=auroc(probabilities, labels),
        sensitivity_at_90_specificity=sensitivity_at_specificity(probabilities, labels, 0.9),
        ece=expected_calibration_error(probabilities, labels),
    )


def f1_of_class(
    verdicts: NDArray[np.int64], labels: NDArray[np.int64], positive: int
) -> float | None:
    """F1 with one class as the positive one; None where that class occurs nowhere."""
    hits = int(((verdicts == positive) & (labels == positive)).sum())
    claimed, present = int((verdicts == positive).sum()), int((labels == positive).sum())
    return 2 * hits / (claimed + present) if claimed + present else None


def auroc(scores: Floats, labels: NDArray[np.int64]) -> float | None:
    """Area under the ROC curve by ranks (ties count half); None with one class only."""
    positives = int((labels == 1).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    ranks = (last_rank - (counts - 1) / 2)[inverse]
    rank_sum = float(ranks[labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def sensitivity_at_specificity(
    scores: Floats, labels: NDArray[np.int64], specificity: float
) -> float | None:
    """Largest sensitivity whose specificity is at least the given one; None with one class."""
    negatives, positives = scores[labels == 0], scores[labels == 1]
    if not len(negatives) or not len(positives):
        return None
    candidates = np.unique(np.append(scores, np.inf))
    specificities = np.searchsorted(np.sort(negatives), candidates, side="left") / len(negatives)
    threshold = candidates[np.argmax(specificities >= specificity)]
    return float((positives >= threshold).mean())


def expected_calibration_error(
    probabilities: Floats, labels: NDArray[np.int64], bins: int = 15
) -> float:
    """Mean gap between claimed and observed frequency of pneumonia over equal-width bins."""
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    gap = 0.0
    for bin_number in np.unique(which):
        inside = which == bin_number
        gap += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    return float(gap)


def score_mask(predicted_hw: BoolImage, reference_hw: BoolImage) -> MaskScores:
    """Score one hard mask against another of the same shape; Dice = 2 J / (1 + J) by construction.

    Two empty masks agree fully; distances are then 0.
    """
    overlap = int((predicted_hw & reference_hw).sum())
    union = int((predicted_hw | reference_hw).sum())
    total = int(predicted_hw.sum()) + int(reference_hw.sum())
    dice = 2 * overlap / total if total else 1.0
    iou = overlap / union if union else 1.0
    distances = surface_distances(predicted_hw, reference_hw)
    if distances is None:
        both_empty = total == 0
        zero_or_none = 0.0 if both_empty else None
        return MaskScores(dice, iou, zero_or_none, zero_or_none, zero_or_none)
    there, back = distances
    return MaskScores(
        dice=dice,
        iou=iou,
        hausdorff_px=float(max(there.max(), back.max())),
        hd95_px=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        average_surface_distance_px=float(np.concatenate([there, back]).mean()),
    )


def surface_distances(first_hw: BoolImage, second_hw: BoolImage) -> tuple[Floats, Floats] | None:
    """Distances in pixels from each contour pixel of one mask to the other's contour, both ways.

    Returns:
        None where either mask is empty.
    """
    if not first_hw.any() or not second_hw.any():
        return None
    first, second = contour(first_hw), contour(second_hw)
    to_second = ndimage.distance_transform_edt(~second)
    to_first = ndimage.distance_transform_edt(~first)
    return np.asarray(to_second[first]), np.asarray(to_first[second])


def contour(mask_hw: BoolImage) -> BoolImage:
    """The mask's own pixels that touch its outside (4-neighbourhood) or the image's border."""
    inner: BoolImage = ndimage.binary_erosion(mask_hw)
    return mask_hw & ~inner
