"""What one training step minimises: the weighted terms of the table model's loss, by name."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import TrainingConfig
from model.distributed import ReadsFilms
from model.losses import (
    bernoulli_kl,
    dice_loss,
    mask_consistency,
    prior_kl,
    pseudo_label_loss,
    restoration_loss,
)
from model.network import NetworkOutput
from model.thresholds import Thresholds
from model.views import Batch, StepViews, UnlabelledViews


class StepLosses(NamedTuple):
    """What one step minimises, and what is worth knowing beside it.

    Attributes:
        terms: weighted scalars under ``dice``, ``mask_ce``, ``ce``, ``pseudo`` and
            ``unlabelled_mask``; only those that the configuration's tasks have. In a warm-up
            ``restoration`` alone. Their sum is minimised.
        watched: detached scalars under ``pseudo_labelled``, the share of unlabelled images whose
            pseudo-label counts; empty without pseudo-labels.
    """

    terms: dict[str, Tensor]
    watched: dict[str, Tensor]


def step_losses(
    network: ReadsFilms,
    teacher: ReadsFilms,
    thresholds: Thresholds,
    views: StepViews,
    config: TrainingConfig,
) -> StepLosses:
    """The loss of one step, term by term.

    Args:
        network: the one that learns.
        teacher: gives the targets of the unlabelled images; may be ``network`` itself.
        thresholds: how sure it has to be of each class.
        views: what the step learns from.
        config: weights of the terms.
    """
    if views.restored is not None:
        # The decoder's map stands for the film here; the tasks after it make it the lungs.
        restored = wanted_masks(network(views.restored.damaged))
        return StepLosses({"restoration": restoration_loss(restored, views.restored.whole)}, {})
    labelled: NetworkOutput | None = None
    masked: NetworkOutput | None = None
    terms: dict[str, Tensor] = {}
    if views.labelled is not None:
        labelled = network(views.labelled.images, masks=False)
    if views.masked is not None:
        masked = network(views.masked.images)
        terms |= mask_terms(wanted_masks(masked), views.masked.masks, config)
    terms |= class_terms(labelled, masked, views, config)
    if views.unlabelled is None:
        return StepLosses(terms, {})
    labelled_masks = wanted_masks(masked) if masked is not None else None
    unlabelled = unlabelled_losses(
        network, teacher, thresholds, views.unlabelled, labelled_masks, config
    )
    return StepLosses(terms | unlabelled.terms, unlabelled.watched)


def mask_terms(mask_logits: Tensor, masks: Tensor, config: TrainingConfig) -> dict[str, Tensor]:
    """Dice loss and, where weighted, per-pixel cross-entropy against labelled masks."""
    terms = {"dice": config.mask_weight * dice_loss(mask_logits, masks)}
    if config.mask_cross_entropy:
        terms["mask_ce"] = config.mask_cross_entropy * F.binary_cross_entropy_with_logits(
            mask_logits.float(), masks
        )
    return terms


def class_terms(
    labelled: NetworkOutput | None,
    masked: NetworkOutput | None,
    views: StepViews,
    config: TrainingConfig,
) -> dict[str, Tensor]:
    """Cross-entropy against class labels, those of images drawn for their mask included."""
    seen: list[tuple[NetworkOutput | None, Batch | None]] = [(labelled, views.labelled)]
    if config.share_annotations and config.tasks.classify:
        seen.append((masked, views.masked))
    parts = [
        (output.logits, batch.classes)
        for output, batch in seen
        if output is not None and batch is not None
    ]
    if not parts:
        return {}
    logits, classes = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return {"ce": F.cross_entropy(logits.float(), classes, ignore_index=-1)}


def unlabelled_losses(
    network: ReadsFilms,
    teacher: ReadsFilms,
    thresholds: Thresholds,
    views: UnlabelledViews,
    labelled_mask_logits: Tensor | None,
    config: TrainingConfig,
) -> StepLosses:
    """What unlabelled images teach: pseudo-labels and, with its task, masks."""
    wants_masks = config.tasks.unlabelled_masks
    wants_weak_masks = wants_masks and config.unlabelled_mask_term == "consistency"
    with torch.no_grad():
        weak = teacher(views.weak, masks=wants_weak_masks)
    strong = network(views.strong, masks=wants_masks)
    terms: dict[str, Tensor] = {}
    watched: dict[str, Tensor] = {}
    if config.tasks.pseudo_labels:
        pseudo = pseudo_label_loss(weak.logits, strong.logits, thresholds(weak.logits))
        terms["pseudo"] = config.pseudo_label_weight * pseudo.loss
        watched["pseudo_labelled"] = pseudo.kept
    if wants_masks:
        terms["unlabelled_mask"] = config.unlabelled_mask_weight * unlabelled_mask_loss(
            weak, strong, views.is_other, labelled_mask_logits, config
        )
    return StepLosses(terms, watched)


def unlabelled_mask_loss(
    weak: NetworkOutput,
    strong: NetworkOutput,
    is_other: Tensor | None,
    labelled_mask_logits: Tensor | None,
    config: TrainingConfig,
) -> Tensor:
    """The configured comparison: with the weak view's masks, or with those of labelled images."""
    strong_masks = wanted_masks(strong)
    if config.unlabelled_mask_term == "consistency":
        weak_masks = wanted_masks(weak)
        if is_other is not None:
            weak_masks = torch.where(is_other, weak_masks.roll(1, 0), weak_masks)
        return mask_consistency(weak_masks, strong_masks, config.unlabelled_mask_threshold)
    if labelled_mask_logits is None:
        raise AssertionError("the configuration asks for labelled masks beside this term")
    kl = prior_kl if config.unlabelled_mask_term == "prior_kl" else bernoulli_kl
    return kl(labelled_mask_logits, strong_masks)


def wanted_masks(output: NetworkOutput) -> Tensor:
    """Mask logits of a pass that was asked for them."""
    if output.mask_logits is None:
        raise AssertionError("the network was not asked for masks")
    return output.mask_logits
