import math

import pytest
import torch
from torch.nn import functional as F

from model.losses import (
    bernoulli_kl,
    dice_loss,
    mask_consistency,
    prior_kl,
    pseudo_label_loss,
)


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_is_the_bernoulli_divergence_of_each_pixel():
    p, q = torch.tensor(0.8), torch.tensor(0.3)
    by_hand = 0.8 * math.log(0.8 / 0.3) + 0.2 * math.log(0.2 / 0.7)
    found = bernoulli_kl(torch.logit(p).expand(2, 1, 4, 4), torch.logit(q).expand(2, 1, 4, 4))
    assert float(found) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("kl", [bernoulli_kl, prior_kl])
def test_kl_has_a_gradient_on_the_unlabelled_side_alone(kl):
    labelled = logits(3, 1, 8, 8).requires_grad_()
    unlabelled = logits(3, 1, 8, 8, seed=1).requires_grad_()
    loss = kl(labelled, unlabelled)
    loss.backward()
    assert loss.item() > 0
    assert float(unlabelled.grad.abs().min()) > 0
    assert labelled.grad is None


@pytest.mark.parametrize("kl", [bernoulli_kl, prior_kl])
def test_kl_of_equal_predictions_is_zero(kl):
    same = logits(2, 1, 8, 8)
    assert float(kl(same, same)) == pytest.approx(0, abs=1e-6)


def test_kl_stays_finite_where_predictions_are_certain():
    certain = torch.full((1, 1, 2, 2), 80.0)
    loss = bernoulli_kl(certain, -certain)
    assert math.isfinite(loss.item())
    assert loss.item() > 10


def test_batches_of_different_size_are_paired_as_far_as_they_reach():
    labelled, unlabelled = logits(5, 1, 4, 4), logits(3, 1, 4, 4, seed=1)
    expected = bernoulli_kl(labelled[:3], unlabelled)
    assert float(bernoulli_kl(labelled, unlabelled)) == float(expected)


def test_the_prior_does_not_care_how_images_are_paired():
    labelled, unlabelled = logits(4, 1, 4, 4), logits(4, 1, 4, 4, seed=1)
    shuffled = prior_kl(labelled, unlabelled.flip(0))
    torch.testing.assert_close(prior_kl(labelled, unlabelled), shuffled)


def test_pseudo_labels_below_the_threshold_contribute_nothing():
    weak = torch.logit(torch.tensor([[0.31, 0.69], [0.5, 0.5]]))
    strong = logits(2, 2).requires_grad_()
    found = pseudo_label_loss(weak.log_softmax(1), strong, thresholds=torch.full((2,), 0.95))
    found.loss.backward()
    assert found.loss.item() == 0
    assert float(found.kept) == 0
    assert not bool(strong.grad.any())


def test_pseudo_labels_are_averaged_over_the_whole_batch():
    weak = torch.log(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]]))
    strong = logits(4, 2)
    found = pseudo_label_loss(weak, strong, thresholds=torch.full((2,), 0.7))
    kept = F.cross_entropy(strong[:2], torch.tensor([0, 1]), reduction="sum")
    assert found.loss.item() == pytest.approx(float(kept) / 4)
    assert float(found.kept) == 0.5


def test_a_pseudo_label_at_the_threshold_counts():
    weak = torch.zeros(1, 2)
    found = pseudo_label_loss(weak, torch.zeros(1, 2), thresholds=torch.full((2,), 0.5))
    assert float(found.kept) == 1.0


def test_each_class_has_its_own_threshold():
    weak = torch.log(torch.tensor([[0.7, 0.3], [0.3, 0.7]]))
    strong = logits(2, 2)
    found = pseudo_label_loss(weak, strong, thresholds=torch.tensor([0.6, 0.8]))
    kept = F.cross_entropy(strong[:1], torch.tensor([0]), reduction="sum")
    assert found.loss.item() == pytest.approx(float(kept) / 2)


def test_the_weak_view_gets_no_gradient_from_its_pseudo_label():
    weak, strong = logits(4, 2).requires_grad_(), logits(4, 2, seed=1).requires_grad_()
    pseudo_label_loss(weak, strong, thresholds=torch.full((2,), 0.5)).loss.backward()
    assert weak.grad is None
    assert bool(strong.grad.any())


def test_dice_loss_is_near_zero_for_the_mask_itself_and_near_one_for_its_opposite():
    masks = torch.zeros(2, 1, 16, 16)
    masks[:, :, :8] = 1
    assert float(dice_loss(masks * 200 - 100, masks)) == pytest.approx(0, abs=1e-4)
    assert float(dice_loss(100 - masks * 200, masks)) > 0.99


def test_dice_loss_is_the_papers_with_smooth_one():
    probability, pixels = 0.25, 16
    found = dice_loss(torch.logit(torch.full((1, 1, 4, 4), probability)), torch.ones(1, 1, 4, 4))
    overlap, total = probability * pixels, probability * pixels + pixels
    assert float(found) == pytest.approx(1 - (2 * overlap + 1) / (total + 1))


def test_dice_loss_of_two_empty_masks_is_zero():
    nothing = torch.full((1, 1, 4, 4), -100.0)
    assert float(dice_loss(nothing, torch.zeros(1, 1, 4, 4))) == pytest.approx(0, abs=1e-5)


def test_dice_loss_averages_images_and_not_pixels():
    masks = torch.zeros(2, 1, 8, 8)
    masks[0] = 1
    predicted = torch.stack([torch.full((1, 8, 8), 100.0), torch.full((1, 8, 8), 100.0)])
    each = [float(dice_loss(predicted[i : i + 1], masks[i : i + 1])) for i in range(2)]
    assert float(dice_loss(predicted, masks)) == pytest.approx(sum(each) / 2)


def test_consistency_counts_confident_pixels_alone():
    weak = torch.logit(torch.tensor([0.99, 0.01, 0.6, 0.4])).view(1, 1, 2, 2)
    strong = logits(1, 1, 2, 2).requires_grad_()
    loss = mask_consistency(weak, strong, threshold=0.95)
    loss.backward()
    expected = F.binary_cross_entropy_with_logits(
        strong.detach().flatten()[:2], torch.tensor([1.0, 0.0]), reduction="sum"
    )
    assert loss.item() == pytest.approx(float(expected) / 4)
    assert [bool(g) for g in strong.grad.flatten()] == [True, True, False, False]


def test_consistency_gives_the_weak_view_no_gradient():
    weak, strong = logits(1, 1, 4, 4).requires_grad_(), logits(1, 1, 4, 4).requires_grad_()
    mask_consistency(weak, strong, threshold=0.5).backward()
    assert weak.grad is None
