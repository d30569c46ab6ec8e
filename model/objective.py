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
    watched: dict[str, Tensor] = {}
    if views.unlabelled is not None:
        terms_of_views, watched = unlabelled_losses(
            network, teacher, thresholds, views.unlabelled, config
        )
        terms |= terms_of_views
    if views.unmasked is not None and masked is not None:
        unmasked = wanted_masks(network(views.unmasked.images))
        kl = prior_kl if config.unlabelled_mask_term == "prior_kl" else bernoulli_kl
        terms["unlabelled_mask"] = config.unlabelled_mask_weight * kl(
            wanted_masks(masked), unmasked
        )
    return StepLosses(terms, watched)


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
    config: TrainingConfig,
) -> StepLosses:
    """What two views of unlabelled images teach: pseudo-labels and, where they agree, masks."""
    compares_masks = config.tasks.unlabelled_masks and not config.compares_with_other_films
    with torch.no_grad():
        weak = teacher(views.weak, masks=compares_masks)
    strong = network(views.strong, masks=compares_masks)
    terms: dict[str, Tensor] = {}
    watched: dict[str, Tensor] = {}
    if config.tasks.pseudo_labels:
        pseudo = pseudo_label_loss(weak.logits, strong.logits, thresholds(weak.logits))
        terms["pseudo"] = config.pseudo_label_weight * pseudo.loss
        watched["pseudo_labelled"] = pseudo.kept
    if compares_masks:
        targets = wanted_masks(weak)
        if views.is_other is not None:
            targets = torch.where(views.is_other, targets.roll(1, 0), targets)
        terms["unlabelled_mask"] = config.unlabelled_mask_weight * mask_consistency(
            targets, wanted_masks(strong), config.unlabelled_mask_threshold
        )
    return StepLosses(terms, watched)


def wanted_masks(output: NetworkOutput) -> Tensor:
    """Mask logits of a pass that was asked for them."""
    if output.mask_logits is None:
        raise AssertionError("the network was not asked for masks")
    return output.mask_logits
