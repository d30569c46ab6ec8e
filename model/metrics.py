"""The figures that a model is judged by; pure functions of arrays.

Classification: accuracy, F1 of each class, balanced accuracy, AUROC, sensitivity at 90 %
specificity, expected calibration error. Segmentation, on one hard mask at a time: Dice, Jaccard,
precision, recall, Hausdorff distance and its 95th percentile, average surface distance, structural
similarity.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

CALIBRATION_BINS: Final = 15

# Structural similarity as in Wang et al. 2004: a Gaussian window of 11 x 11 pixels.
SSIM_SIGMA: Final = 1.5
SSIM_RADIUS: Final = 5
SSIM_C1: Final = 0.01**2
SSIM_C2: Final = 0.03**2


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
    """How well one mask fits another.

    Distances are None where just one mask is empty, those in mm also where the pixel spacing is
    unknown. ``ssim`` is None for a mask smaller than its window, ``mask_precision`` where nothing
    is predicted, ``mask_recall`` where there is nothing to find.
    """

    dice: float
    iou: float
    mask_precision: float | None
    mask_recall: float | None
    ssim: float | None
    hausdorff_px: float | None
    hd95_px: float | None
    average_surface_distance_px: float | None
    hausdorff_mm: float | None
    hd95_mm: float | None
    average_surface_distance_mm: float | None


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


def calibration_bins(probabilities: Floats) -> NDArray[np.int64]:
    """Which of ``CALIBRATION_BINS`` bins of equal width each probability falls into, (images,)."""
    return np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def expected_calibration_error(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """Mean gap between claimed and observed frequency of pneumonia over equal-width bins."""
    which = calibration_bins(probabilities)
    gap = 0.0
    for bin_number in np.unique(which):
        inside = which == bin_number
        gap += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    return float(gap)


def score_mask(
    predicted_hw: BoolImage,
    reference_hw: BoolImage,
    spacing_mm: tuple[float, float] | None = None,
) -> MaskScores:
    """Score one hard mask against another of the same shape; Dice = 2 J / (1 + J) by construction.

    Two empty masks agree fully; distances are then 0.

    Args:
        predicted_hw: bool, (rows, columns).
        reference_hw: bool, (rows, columns).
        spacing_mm: between rows and between columns of these masks; None where unknown.
    """
    overlap = int((predicted_hw & reference_hw).sum())
    union = int((predicted_hw | reference_hw).sum())
    claimed, present = int(predicted_hw.sum()), int(reference_hw.sum())
    in_px = _distance_figures(predicted_hw, reference_hw, (1.0, 1.0))
    in_mm = _distance_figures(predicted_hw, reference_hw, spacing_mm) if spacing_mm else (None,) * 3
    return MaskScores(
        dice=2 * overlap / (claimed + present) if union else 1.0,
        iou=overlap / union if union else 1.0,
        mask_precision=overlap / claimed if claimed else None,
        mask_recall=overlap / present if present else None,
        ssim=mask_ssim(predicted_hw, reference_hw),
        hausdorff_px=in_px[0],
        hd95_px=in_px[1],
        average_surface_distance_px=in_px[2],
        hausdorff_mm=in_mm[0],
        hd95_mm=in_mm[1],
        average_surface_distance_mm=in_mm[2],
    )


def _distance_figures(
    first_hw: BoolImage, second_hw: BoolImage, spacing: tuple[float, float]
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Hausdorff distance, its 95th percentile, average symmetric surface distance."""
    distances = surface_distances(first_hw, second_hw, spacing)
    if distances is None:
        is_nowhere = not first_hw.any() and not second_hw.any()
        return (0.0, 0.0, 0.0) if is_nowhere else (None, None, None)
    there, back = distances
    return (
        float(max(there.max(), back.max())),
        float(max(np.percentile(there, 95), np.percentile(back, 95))),
        float(np.concatenate([there, back]).mean()),
    )


def surface_distances(
    first_hw: BoolImage, second_hw: BoolImage, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[Floats, Floats] | None:
    """Distances from each contour pixel of one mask to the other's contour, both ways.

    Args:
        first_hw: bool, (rows, columns).
        second_hw: bool, (rows, columns).
        spacing: distance between rows and between columns; the unit of the result.

    Returns:
        None where either mask is empty.
    """
    if not first_hw.any() or not second_hw.any():
        return None
    # No distance leads outside the box around both masks, and its edge is their contour's edge.
    box = ndimage.find_objects((first_hw | second_hw).astype(np.uint8))[0]
    first, second = contour(first_hw[box]), contour(second_hw[box])
    to_second = ndimage.distance_transform_edt(~second, sampling=spacing)
    to_first = ndimage.distance_transform_edt(~first, sampling=spacing)
    return np.asarray(to_second[first]), np.asarray(to_first[second])


def mask_ssim(first_hw: BoolImage, second_hw: BoolImage) -> float | None:
    """Mean structural similarity of two masks as images of 0 and 1.

    Wang et al. 2004: a Gaussian window of 11 x 11 pixels with a standard deviation of 1.5,
    K1 = 0.01, K2 = 0.03, a data range of 1, averaged over the windows that lie within the image.
    The figure depends on the grid: on a finer one more windows see nothing but background.

    Args:
        first_hw: bool, (rows, columns).
        second_hw: bool, (rows, columns).

    Returns:
        In [-1, 1]; None for an image smaller than the window.
    """
    if min(first_hw.shape) < 2 * SSIM_RADIUS + 1:
        return None
    first, second = _windowed_mean(first_hw), _windowed_mean(second_hw)
    # A mask is its own square, so the variance needs no further filter.
    variances = first * (1 - first) + second * (1 - second)
    covariance = _windowed_mean(first_hw & second_hw) - first * second
    similarity = ((2 * first * second + SSIM_C1) * (2 * covariance + SSIM_C2)) / (
        (first**2 + second**2 + SSIM_C1) * (variances + SSIM_C2)
    )
    return float(similarity.mean())


def _windowed_mean(mask_hw: BoolImage) -> Floats:
    """Gaussian mean around each pixel whose whole window lies within the image."""
    smoothed_hw: Floats = ndimage.gaussian_filter(
        mask_hw.astype(np.float64), SSIM_SIGMA, radius=SSIM_RADIUS
    )
    return smoothed_hw[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]


def contour(mask_hw: BoolImage) -> BoolImage:
    """The mask's own pixels that touch its outside (4-neighbourhood) or the image's border."""
    inner: BoolImage = ndimage.binary_erosion(mask_hw)
    return mask_hw & ~inner
