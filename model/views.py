"""The batches of one training step: rows drawn from the streams, then seen weakly or strongly.

All on the CPU and from the step's own generator, so that the same step gives the same views
whatever came before it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model import augment
from model.config import TrainingConfig
from model.image_table import ImageTable
from model.rand_augment import rand_augment
from model.splits import Pools
from model.streams import Stream, Streams, seeded

# Of each film in a warm-up; together they hide about a fifth of it.
HIDDEN_RECTANGLES = 8


@dataclass(frozen=True)
class Batch:
    """One stream's part of a step.

    Attributes:
        images: float in [-1, 1], (n, 1, side, side).
        masks: float in {0, 1}, same shape.
        classes: int64, (n,), -1 where unlabelled.
    """

    images: Tensor
    masks: Tensor
    classes: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(self.images.to(device), self.masks.to(device), self.classes.to(device))


@dataclass(frozen=True)
class UnlabelledViews:
    """Two views of the same unlabelled images, in the same order.

    Attributes:
        weak: float in [-1, 1], (n, 1, side, side).
        strong: the same images, changed further.
        is_other: bool, same shape; where a strong view shows the image before it (see
            ``augment.patch``); None where it nowhere does.
    """

    weak: Tensor
    strong: Tensor
    is_other: Tensor | None = None

    def to(self, device: torch.device) -> "UnlabelledViews":
        """The same views on a device."""
        is_other = self.is_other.to(device) if self.is_other is not None else None
        return UnlabelledViews(self.weak.to(device), self.strong.to(device), is_other)


@dataclass(frozen=True)
class DamagedViews:
    """Films of which parts are hidden and displaced, and what they were, in the same order.

    Attributes:
        damaged: float in [-1, 1], (n, 1, side, side).
        whole: the same films before.
    """

    damaged: Tensor
    whole: Tensor

    def to(self, device: torch.device) -> "DamagedViews":
        """The same views on a device."""
        return DamagedViews(self.damaged.to(device), self.whole.to(device))


@dataclass(frozen=True)
class StepViews:
    """All that one step learns from; a part is None where its task is off."""

    labelled: Batch | None = None
    masked: Batch | None = None
    unlabelled: UnlabelledViews | None = None
    unmasked: Batch | None = None
    restored: DamagedViews | None = None


def views_of_step(
    table: ImageTable,
    pools: Pools,
    streams: Streams,
    config: TrainingConfig,
    step: int,
    device: torch.device,
) -> StepViews:
    """Draw one step's images and change each as its part of the loss wants it.

    Args:
        table: images and masks.
        pools: the class of each row.
        streams: what to draw from.
        config: image size and augmentation.
        step: counted from 0.
        device: where the views are wanted.
    """
    side = config.side_at(step)
    generator = seeded(config.seed, step)

    def drawn(stream: Stream) -> Batch:
        return draw(table, pools, stream, step, side)

    if step < config.warm_up_steps and streams.restored is not None:
        damaged = damaged_views(drawn(streams.restored), config, generator)
        return StepViews(restored=damaged.to(device))

    # The order matters: all of them draw from one generator.
    labelled = masked = unlabelled = unmasked = None
    if streams.labelled is not None:
        labelled = labelled_view(drawn(streams.labelled), config, generator).to(device)
    if streams.masked is not None:
        masked = masked_view(drawn(streams.masked), config, generator).to(device)
    if streams.unlabelled is not None:
        unlabelled = unlabelled_views(drawn(streams.unlabelled), config, generator).to(device)
    if streams.unmasked is not None:
        unmasked = masked_view(drawn(streams.unmasked), config, generator).to(device)
    return StepViews(labelled, masked, unlabelled, unmasked)


def draw(table: ImageTable, pools: Pools, stream: Stream, step: int, side: int) -> Batch:
    """Fetch one stream's rows of one step, unchanged."""
    rows = stream.draw(step)
    images, masks = table.tensors(rows, side)
    return Batch(images, masks, torch.tensor([pools.classes[row] for row in rows]))


def labelled_view(batch: Batch, config: TrainingConfig, generator: torch.Generator) -> Batch:
    """Move labelled images; where the strong view is an exposure, re-expose them too."""
    moved = weak_view(batch, config, generator)
    if config.strong_view == "rand_augment":
        return moved
    images = exposed(moved.images, config, generator, config.labelled_exposure)
    return Batch(images, moved.masks, moved.classes)


def masked_view(batch: Batch, config: TrainingConfig, generator: torch.Generator) -> Batch:
    """Move and re-expose images with masks where the configuration says so."""
    if not config.augment_masks:
        return batch
    moved = weak_view(batch, config, generator)
    return Batch(exposed(moved.images, config, generator), moved.masks, moved.classes)


def unlabelled_views(
    batch: Batch, config: TrainingConfig, generator: torch.Generator
) -> UnlabelledViews:
    """The weak view, and the strong one made from it."""
    weak = weak_view(batch, config, generator).images
    if config.strong_view == "patchwork":
        patchwork = augment.patch(exposed(weak, config, generator), generator)
        return UnlabelledViews(weak, patchwork.images, patchwork.is_other)
    return UnlabelledViews(weak, strong_view(weak, config, generator))


def damaged_views(batch: Batch, config: TrainingConfig, generator: torch.Generator) -> DamagedViews:
    """Weakly moved films, and the same re-exposed, displaced pixel by pixel and hidden in part."""
    whole = weak_view(batch, config, generator).images
    damaged = augment.displace(exposed(whole, config, generator), generator)
    for _ in range(HIDDEN_RECTANGLES):
        damaged = augment.cut_out(damaged, generator, largest=0.35)
    return DamagedViews(damaged, whole)


def weak_view(batch: Batch, config: TrainingConfig, generator: torch.Generator) -> Batch:
    """Flip, shift and, where the settings say so, rotate, scale, shear, bend; masks move along."""
    geometry = augment.Geometry(
        flip=config.flip,
        shift=config.shift,
        rotate=config.rotate,
        scale=config.scale,
        shear=config.shear,
    )
    maps = augment.affine_maps(len(batch.images), geometry, generator)
    bent = augment.bends(len(maps), config.bend, generator) if config.bend else None
    moved = augment.move(batch.images, batch.masks, maps, bent)
    return Batch(moved.images, moved.masks, batch.classes)


def strong_view(images: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """The strong view of weakly moved images."""
    if config.strong_view == "rand_augment":
        return rand_augment(images, generator, config.rand_augment_operations)
    return augment.cut_out(exposed(images, config, generator), generator, config.cut_out)


def exposed(
    images: Tensor, config: TrainingConfig, generator: torch.Generator, share: float = 1.0
) -> Tensor:
    """Images as other scanners and exposures would have given them, to a share of the settings."""
    if config.blur:
        images = augment.blur(images, generator, config.blur)
    return augment.vary_intensity(images, generator, share * config.exposure)
