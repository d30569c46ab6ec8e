"""The terms of MultiMix's loss (ISBI paper, equations 1 and 2), each a pure function of tensors."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.local_contrast import local_contrast


class PseudoLabelLoss(NamedTuple):
    """The unlabelled classification term and how many images carried it.

    Attributes:
        loss: float scalar, averaged over the whole batch; images below the threshold count 0.
        kept: float scalar in [0, 1], the share of images at or above the threshold.
    """

    loss: Tensor
    kept: Tensor


def dice_loss(mask_logits: Tensor, masks: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss, averaged over the batch.

    Args:
        mask_logits: float, (batch, 1, height, width).
        masks: float in {0, 1}, same shape.
        smooth: added to numerator and denominator.

    Returns:
        Scalar in [0, 1].
    """
    probabilities = torch.sigmoid(mask_logits.float()).flatten(1)
    targets = masks.float().flatten(1)
    overlap = (probabilities * targets).sum(1)
    total = probabilities.sum(1) + targets.sum(1)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def pseudo_label_loss(
    weak_logits: Tensor, strong_logits: Tensor, thresholds: Tensor
) -> PseudoLabelLoss:
    """Cross-entropy of the strong view against the confident arg-max of the weak view.

    Equation 1's unlabelled term: both views come from the same images, in the same order; the
    weak view gives no gradient.

    Args:
        weak_logits: float, (batch, classes).
        strong_logits: float, (batch, classes).
        thresholds: float, (classes,), in [0, 1]; smallest probability of a pseudo-label of each
            class that counts.
    """
    confidence, pseudo_labels = weak_logits.detach().float().softmax(dim=1).max(dim=1)
    counts = (confidence >= thresholds[pseudo_labels]).float()
    each = F.cross_entropy(strong_logits.float(), pseudo_labels, reduction="none")
    return PseudoLabelLoss((each * counts).mean(), counts.mean())


def bernoulli_kl(labelled_mask_logits: Tensor, unlabelled_mask_logits: Tensor) -> Tensor:
    """KL(labelled || unlabelled) of the per-pixel lung probabilities (equation 2).

    A softmax over the one-channel output would be 1 everywhere and its KL zero, gradient included;
    the mask is a Bernoulli variable per pixel. The labelled side is the target and gives no
    gradient. Batches of different size are paired as far as the shorter one reaches.

    Args:
        labelled_mask_logits: float, (batch, 1, height, width).
        unlabelled_mask_logits: float, (batch, 1, height, width); other images.

    Returns:
        Scalar >= 0, mean over pixels.
    """
    pairs = min(len(labelled_mask_logits), len(unlabelled_mask_logits))
    p_logits = labelled_mask_logits[:pairs].detach().float()
    q_logits = unlabelled_mask_logits[:pairs].float()
    return _kl_of_logits(p_logits, q_logits)


def prior_kl(labelled_mask_logits: Tensor, unlabelled_mask_logits: Tensor) -> Tensor:
    """KL between the mean lung maps of two batches: an anatomical prior, free of arbitrary pairs.

    Args:
        labelled_mask_logits: float, (batch, 1, height, width).
        unlabelled_mask_logits: float, (batch, 1, height, width).

    Returns:
        Scalar >= 0, mean over pixels.
    """
    p = torch.sigmoid(labelled_mask_logits.detach().float()).mean(0)
    q = torch.sigmoid(unlabelled_mask_logits.float()).mean(0)
    return _kl_of_logits(torch.logit(p, eps=1e-6), torch.logit(q, eps=1e-6))


def restoration_loss(restored: Tensor, films: Tensor) -> Tensor:
    """How far the local contrast of a restored film is from that of the film itself.

    Args:
        restored: float, (batch, 1, height, width).
        films: float in [-1, 1], same shape.

    Returns:
        Scalar >= 0, mean squared difference.
    """
    return F.mse_loss(restored.float(), local_contrast(films))


def mask_consistency(
    weak_mask_logits: Tensor, strong_mask_logits: Tensor, threshold: float
) -> Tensor:
    """Cross-entropy of the strong view's mask against the confident pixels of the weak view's.

    The views must share their geometry. Pixels whose probability lies between ``1 - threshold``
    and ``threshold`` count 0.

    Args:
        weak_mask_logits: float, (batch, 1, height, width); gives no gradient.
        strong_mask_logits: float, (batch, 1, height, width).
        threshold: smallest probability of a pixel's pseudo-label that counts, in [0.5, 1].

    Returns:
        Scalar >= 0, mean over all pixels.
    """
    probabilities = torch.sigmoid(weak_mask_logits.detach().float())
    targets = (probabilities >= 0.5).float()
    confident = ((probabilities >= threshold) | (probabilities <= 1 - threshold)).float()
    each = F.binary_cross_entropy_with_logits(strong_mask_logits.float(), targets, reduction="none")
    return (each * confident).mean()


def _kl_of_logits(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(Bernoulli(p) || Bernoulli(q)) from logits, mean over all elements."""
    p = torch.sigmoid(p_logits)
    log_ratio_inside = F.logsigmoid(p_logits) - F.logsigmoid(q_logits)
    log_ratio_outside = F.logsigmoid(-p_logits) - F.logsigmoid(-q_logits)
    return (p * log_ratio_inside + (1 - p) * log_ratio_outside).mean()
