import pytest
import torch

from model.presets import configure
from model.thresholds import AdaptiveThresholds, thresholds_for


def answers(*pneumonia: float) -> torch.Tensor:
    """Logits of films with these probabilities of pneumonia."""
    second = torch.tensor(pneumonia)
    return torch.stack([1 - second, second], dim=1).log()


def test_a_fixed_threshold_is_the_same_for_every_class_whatever_the_network_says():
    thresholds = thresholds_for(0.7)
    for weak in (answers(0.5, 0.5), answers(0.99, 0.98)):
        assert thresholds(weak).tolist() == pytest.approx([0.7, 0.7])


def test_adaptive_thresholds_begin_low_and_rise_with_the_networks_confidence():
    thresholds = AdaptiveThresholds()
    first = thresholds(answers(0.4, 0.6))
    for _ in range(500):
        last = thresholds(answers(0.02, 0.98))
    assert float(first.max()) < 0.51
    assert float(last.max()) == pytest.approx(0.98, abs=0.01)


def test_a_class_that_is_found_less_often_needs_less_confidence():
    thresholds = AdaptiveThresholds()
    for _ in range(500):
        normal, pneumonia = thresholds(answers(0.1, 0.9, 0.9, 0.9)).tolist()
    assert normal == pytest.approx(pneumonia * 0.3 / 0.7, rel=0.03)


def test_adaptive_thresholds_give_no_gradient():
    weak = answers(0.3, 0.8).requires_grad_()
    assert not AdaptiveThresholds()(weak).requires_grad


def test_they_are_chosen_by_the_configuration():
    config = configure("best", overrides=("pseudo_label_threshold=adaptive",))
    assert isinstance(thresholds_for(config.pseudo_label_threshold), AdaptiveThresholds)
