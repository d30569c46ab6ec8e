import numpy as np
import pytest
from scipy.special import expit

from model.calibrate import balanced_operating_point, fit_calibration, platt
from model.checkpoint import Calibration
from model.metrics import expected_calibration_error
from model.network import MultiMixNetwork, NetworkShape
from model.predictor import calibrated
from model.splits import divide
from tests.model.films import film_table

NARROW = NetworkShape(channels=(8, 8, 8, 8, 8))


def margins_with(scale, offset, count=4000, seed=0):
    """Margins whose true probability is sigmoid(scale * margin + offset), and labels."""
    random = np.random.default_rng(seed)
    margins = random.normal(0, 3, count)
    return margins, (random.random(count) < expit(scale * margins + offset)).astype(np.int64)


@pytest.mark.parametrize(("scale", "offset"), [(0.4, 0.0), (1.0, -1.0), (2.0, 0.7)])
def test_scaling_recovers_how_margins_and_labels_were_made(scale, offset):
    found = platt(*margins_with(scale, offset))
    assert found == pytest.approx((scale, offset), abs=0.15)


def test_scaling_lowers_the_calibration_error():
    margins, labels = margins_with(0.3, -0.8)
    scaled = calibrated(margins, *platt(margins, labels))
    assert expected_calibration_error(scaled, labels) < 0.03
    assert expected_calibration_error(calibrated(margins, 1, 0), labels) > 0.1


def test_a_perfectly_separated_set_gives_no_infinite_scale():
    margins = np.array([-2.0, -1.0, 1.0, 2.0])
    scale, offset = platt(margins, np.array([0, 0, 1, 1]))
    assert 1 < scale < 100
    assert abs(offset) < 1


def test_a_classifier_that_is_always_wrong_is_not_turned_around():
    scale, _ = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([1, 1, 0, 0]))
    assert 0 < scale < 1


def test_extreme_margins_give_probabilities_without_overflow():
    assert calibrated(np.array([-1e6, 1e6]), 1.0, 0.0).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(4))
def test_the_operating_point_is_the_best_of_all_thresholds(seed):
    margins, labels = margins_with(0.5, 0.3, count=80, seed=seed)
    probabilities = calibrated(margins, 1.0, 0.0)

    def balanced(threshold):
        verdicts = probabilities >= threshold
        return (verdicts[labels == 1].mean() + (~verdicts[labels == 0]).mean()) / 2

    point = balanced_operating_point(probabilities, labels)
    best = max(balanced(threshold) for threshold in (*probabilities, 1.1))
    assert balanced(point) == pytest.approx(best)
    assert point not in probabilities


def test_equal_answers_leave_the_operating_point_at_a_half():
    assert balanced_operating_point(np.full(4, 0.3), np.array([0, 1, 0, 1])) == 0.5


def test_held_out_patients_of_one_class_give_no_calibration():
    table = film_table(12, label="normal")
    pools = divide(table.records, labels=None, masks=None, validation_share=0.4, seed=0)
    assert pools.validation
    assert fit_calibration(MultiMixNetwork(NARROW), table, pools, 32) == Calibration()


def test_calibration_is_fitted_on_held_out_patients():
    table = film_table(20)
    pools = divide(table.records, labels=None, masks=None, validation_share=0.4, seed=0)
    fitted = fit_calibration(MultiMixNetwork(NARROW), table, pools, 32)
    assert fitted != Calibration()
    assert fit_calibration(MultiMixNetwork(NARROW).train(), table, pools, 32).scale > 0
