from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from model.metrics import (
    auroc,
    contour,
    expected_calibration_error,
    f1_of_class,
    mask_ssim,
    score_classification,
    score_mask,
    sensitivity_at_specificity,
)


def drawn(seed, images=60, levels=None):
    """Scores and labels; few ``levels`` make ties."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, images)
    scores = np.clip(0.5 + 0.2 * (labels - 0.5) + random.normal(0, 0.2, images), 0, 1)
    if levels is not None:
        scores = np.round(scores * levels) / levels
    return scores, labels


def masks(seed, shape=(24, 20)):
    """Two overlapping blocky masks."""
    random = np.random.default_rng(seed)
    pair = []
    for _ in range(2):
        mask_hw = np.zeros(shape, dtype=bool)
        for _ in range(3):
            top, left = random.integers(0, 14), random.integers(0, 10)
            mask_hw[top : top + random.integers(2, 9), left : left + random.integers(2, 9)] = True
        pair.append(mask_hw)
    return pair


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("seed", range(4))
def test_auroc_is_the_share_of_rightly_ordered_pairs(seed, levels):
    scores, labels = drawn(seed, levels=levels)
    pairs = list(product(scores[labels == 1], scores[labels == 0]))
    expected = sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)
    assert auroc(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_a_constant_answer_is_a_half():
    assert auroc(np.full(6, 0.3), np.array([0, 1, 0, 1, 1, 1])) == 0.5


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("seed", range(4))
def test_sensitivity_at_specificity_is_the_best_over_all_thresholds(seed, levels):
    scores, labels = drawn(seed, levels=levels)
    allowed = [
        float((scores[labels == 1] >= threshold).mean())
        for threshold in (*np.unique(scores), np.inf)
        if (scores[labels == 0] < threshold).mean() >= 0.9
    ]
    assert sensitivity_at_specificity(scores, labels, 0.9) == pytest.approx(max(allowed))


def test_f1_counts_each_class_as_positive_once():
    verdicts, labels = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 0, 1])
    precision, recall = 2 / 3, 2 / 3
    assert f1_of_class(verdicts, labels, 1) == pytest.approx(
        2 * precision * recall / (precision + recall)
    )
    assert f1_of_class(verdicts, labels, 0) == pytest.approx(0.5)
    assert f1_of_class(np.ones(3, int), np.ones(3, int), 0) is None


def test_one_class_gives_no_figure_that_needs_two():
    scores = score_classification(np.array([0.2, 0.8]), np.array([1, 1]), 0.5)
    assert scores.auroc is None
    assert scores.balanced_accuracy is None
    assert scores.sensitivity_at_90_specificity is None
    assert scores.accuracy == 0.5


def test_a_probability_at_the_operating_point_is_pneumonia():
    scores = score_classification(np.array([0.3, 0.2]), np.array([1, 0]), 0.3)
    assert scores.accuracy == scores.balanced_accuracy == scores.f1_pneumonia == 1.0


def test_a_constant_answer_has_a_balanced_accuracy_of_a_half():
    scores = score_classification(np.full(10, 0.9), np.array([1] * 8 + [0] * 2), 0.5)
    assert scores.accuracy == 0.8
    assert scores.balanced_accuracy == 0.5


def test_calibration_error_is_the_mean_gap_between_claim_and_truth():
    probabilities = np.array([0.9] * 10 + [0.1] * 30)
    labels = np.array([1] * 6 + [0] * 4 + [1] * 3 + [0] * 27)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.25 * 0.3)


def test_calibration_error_of_certain_right_answers_is_zero():
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0, 1])) == 0


@pytest.mark.parametrize("seed", range(8))
def test_dice_and_jaccard_are_bound_to_each_other(seed):
    scores = score_mask(*masks(seed))
    assert scores.dice == pytest.approx(2 * scores.iou / (1 + scores.iou), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_overlap_figures_equal_counts_of_pixels(seed):
    first, second = masks(seed)
    one, two = set(zip(*np.nonzero(first), strict=True)), set(zip(*np.nonzero(second), strict=True))
    scores = score_mask(first, second)
    assert scores.dice == pytest.approx(2 * len(one & two) / (len(one) + len(two)))
    assert scores.iou == pytest.approx(len(one & two) / len(one | two))
    assert scores.mask_precision == pytest.approx(len(one & two) / len(one))
    assert scores.mask_recall == pytest.approx(len(one & two) / len(two))


def contour_by_hand(mask_hw):
    rows, columns = mask_hw.shape

    def outside(y, x):
        return not (0 <= y < rows and 0 <= x < columns and mask_hw[y, x])

    return [
        (y, x)
        for y, x in zip(*np.nonzero(mask_hw), strict=True)
        if any(outside(y + dy, x + dx) for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    ]


@pytest.mark.parametrize("seed", range(8))
def test_distances_equal_a_search_over_all_pairs_of_contour_pixels(seed):
    first, second = masks(seed)
    one, two = np.array(contour_by_hand(first)), np.array(contour_by_hand(second))
    distances = np.linalg.norm(one[:, None] - two[None], axis=2)
    there, back = distances.min(1), distances.min(0)
    scores = score_mask(first, second)
    assert scores.hausdorff_px == pytest.approx(max(there.max(), back.max()))
    assert scores.hd95_px == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert scores.average_surface_distance_px == pytest.approx(np.concatenate([there, back]).mean())


def test_the_contour_runs_along_the_border_of_the_image():
    full = np.ones((5, 4), dtype=bool)
    assert int(contour(full).sum()) == 5 * 4 - 3 * 2


def test_scores_do_not_depend_on_which_mask_is_the_reference():
    first, second = masks(3)
    there, back = score_mask(first, second), score_mask(second, first)
    swapped = replace(back, mask_precision=back.mask_recall, mask_recall=back.mask_precision)
    assert there == swapped
    assert there.mask_precision != there.mask_recall


def test_a_mask_against_itself_is_perfect():
    scores = score_mask(masks(0)[0], masks(0)[0])
    assert (scores.dice, scores.iou) == (1.0, 1.0)
    assert (scores.hausdorff_px, scores.average_surface_distance_px) == (0.0, 0.0)


def test_two_empty_masks_agree_and_one_empty_mask_has_no_distance():
    empty, filled = np.zeros((8, 8), dtype=bool), np.eye(8, dtype=bool)
    assert (score_mask(empty, empty).dice, score_mask(empty, empty).hausdorff_px) == (1.0, 0.0)
    missed = score_mask(empty, filled)
    assert (missed.dice, missed.iou) == (0.0, 0.0)
    assert (missed.mask_precision, missed.mask_recall) == (None, 0.0)
    invented = score_mask(filled, empty)
    assert (invented.mask_precision, invented.mask_recall) == (0.0, None)
    assert missed.hausdorff_px is None


def test_a_mask_moved_away_scores_worse_and_worse():
    square = np.zeros((40, 40), dtype=bool)
    square[10:20, 10:20] = True
    scores = [score_mask(square, np.roll(square, shift, axis=1)) for shift in range(0, 10, 3)]
    assert all(near.dice > far.dice for near, far in pairwise(scores))
    assert [s.hausdorff_px for s in scores] == [0, 3, 6, 9]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spacing_mm", [(0.14, 0.14), (1.7, 0.4), (0.3, 2.5)])
def test_distances_in_mm_equal_a_search_with_the_spacing_of_each_axis(seed, spacing_mm):
    first, second = masks(seed)
    one, two = (np.array(contour_by_hand(m)) * np.array(spacing_mm) for m in (first, second))
    distances = np.linalg.norm(one[:, None] - two[None], axis=2)
    there, back = distances.min(1), distances.min(0)
    scores = score_mask(first, second, spacing_mm)
    assert scores.hausdorff_mm == pytest.approx(max(there.max(), back.max()))
    assert scores.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert scores.average_surface_distance_mm == pytest.approx(np.concatenate([there, back]).mean())
    assert scores.hausdorff_px == score_mask(first, second).hausdorff_px


def test_distances_in_mm_need_a_spacing_and_two_masks():
    first, second = masks(0)
    assert score_mask(first, second).hd95_mm is None
    empty = np.zeros_like(first)
    assert score_mask(first, empty, (1.0, 2.0)).hausdorff_mm is None
    assert score_mask(empty, empty, (1.0, 2.0)).hausdorff_mm == 0.0


def ssim_by_hand(first_hw, second_hw):
    """The definition, window by window, with variances as weighted squares of deviations."""
    offsets = np.arange(-5, 6)
    bell = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(bell, bell) / bell.sum() ** 2
    found = []
    rows, columns = first_hw.shape
    for y, x in product(range(5, rows - 5), range(5, columns - 5)):
        a, b = (m[y - 5 : y + 6, x - 5 : x + 6].astype(float) for m in (first_hw, second_hw))
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
        together = (weights * (a - mean_a) * (b - mean_b)).sum()
        found.append(
            (2 * mean_a * mean_b + 0.0001)
            * (2 * together + 0.0009)
            / ((mean_a**2 + mean_b**2 + 0.0001) * (var_a + var_b + 0.0009))
        )
    return np.mean(found)


@pytest.mark.parametrize("seed", range(4))
def test_structural_similarity_equals_its_definition_window_by_window(seed):
    first, second = masks(seed)
    assert mask_ssim(first, second) == pytest.approx(ssim_by_hand(first, second), abs=1e-9)


def test_structural_similarity_is_one_for_equal_masks_and_none_for_tiny_ones():
    first, second = masks(1)
    assert mask_ssim(first, first) == pytest.approx(1.0)
    assert mask_ssim(first, second) < 1.0
    assert mask_ssim(first[:10], first[:10]) is None
