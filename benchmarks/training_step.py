"""One training step: the trainer beside the naive way, and where its time goes.

    python -m benchmarks.training_step --side 256 --rounds 5

``paper`` takes the very step of the naive way: five batches of 10 (labelled, unlabelled seen
weakly, the same seen strongly, with masks, unlabelled for masks), the paper's losses, forward and
backward.
``best`` compares the masks of both views instead, for which it needs no fifth batch: its 40 images
are reckoned as 40, and its ratio is one of images a second. The
naive way is that of the published code: each image with a saliency goes through the encoder twice,
the gradient of the logit runs through the whole graph, everything is eager and in single precision.
Variants take turns, so that whatever else the machine does slows all of them alike. Ends with one
line of JSON.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from model.allocator import keep_freed_memory
from model.config import TrainingConfig, checked_config
from model.dropout import ByteDropout
from model.instance_norm import InstanceNorm
from model.learner import new_learner, take_step
from model.losses import bernoulli_kl, dice_loss, pseudo_label_loss
from model.network import MultiMixNetwork
from model.presets import PRESETS
from model.views import Batch, StepViews, UnlabelledViews

BATCH = 10


@dataclass(frozen=True)
class Streams:
    """The five batches of one step; images float, (10, 1, side, side)."""

    labelled: Tensor
    weak: Tensor
    strong: Tensor
    masked: Tensor
    unmasked: Tensor
    classes: Tensor
    masks: Tensor

    @classmethod
    def drawn(cls, side: int) -> "Streams":
        """Noise: the arithmetic is the same."""
        generator = torch.Generator().manual_seed(0)
        images = [torch.rand(BATCH, 1, side, side, generator=generator) * 2 - 1 for _ in range(5)]
        classes = torch.randint(0, 2, (BATCH,), generator=generator)
        masks = (torch.rand(BATCH, 1, side, side, generator=generator) > 0.5).float()
        labelled, weak, strong, masked, unmasked = images
        return cls(labelled, weak, strong, masked, unmasked, classes, masks)

    def as_views(self, config: TrainingConfig) -> StepViews:
        """The same as the trainer takes them; without the fifth batch where it needs none."""
        unknown = torch.full((BATCH,), -1)
        return StepViews(
            Batch(self.labelled, self.masks, self.classes),
            Batch(self.masked, self.masks, unknown),
            UnlabelledViews(self.weak, self.strong),
            Batch(self.unmasked, self.masks, unknown) if config.compares_with_other_films else None,
        )


def naive_step(network: MultiMixNetwork, optimizer: torch.optim.Optimizer, s: Streams) -> None:
    """A step as the published code goes about it."""

    def classified(images: Tensor) -> Tensor:
        features: list[Tensor] = network.encoder(images)
        pooled = F.max_pool2d(features[-1], 2).mean(dim=(2, 3))
        logits: Tensor = network.classifier(pooled)
        return logits

    def segmented(images: Tensor) -> Tensor:
        leaves = images.detach().requires_grad_()
        torch.autograd.backward(classified(leaves).max(dim=1).values.sum())
        if leaves.grad is None:
            raise AssertionError("the leaves have a gradient")
        saliency = leaves.grad.abs()
        features = network.encoder(images)
        masks: Tensor = network.decoder(features, network.bridge_input(images, saliency))
        return masks

    masks, other_masks = segmented(s.masked), segmented(s.unmasked)
    optimizer.zero_grad()
    with torch.no_grad():
        weak = classified(s.weak)
    loss = (
        F.cross_entropy(classified(s.labelled), s.classes)
        + 0.25 * pseudo_label_loss(weak, classified(s.strong), torch.full((2,), 0.7)).loss
        + 5 * dice_loss(masks, s.masks)
        + 0.01 * bernoulli_kl(masks, other_masks)
    )
    torch.autograd.backward(loss)
    optimizer.step()


def as_published(network: nn.Module) -> None:
    """PyTorch's own norm and dropout, channels outermost."""
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, InstanceNorm):
                setattr(parent, name, nn.InstanceNorm2d(child.num_features))
            elif isinstance(child, ByteDropout):
                setattr(parent, name, nn.Dropout(child.dropped_values / 256))


@dataclass(frozen=True)
class Way:
    """A way of taking a step.

    Attributes:
        images: that pass through the network in it.
        step: takes it.
    """

    images: int
    step: Callable[[], object]


def ways(side: int) -> dict[str, Way]:
    """What is timed, by name."""
    streams = Streams.drawn(side)
    paper = with_side(PRESETS["paper"], side)
    naive = new_learner(paper, torch.device("cpu"))
    as_published(naive.network)

    def trainer(config: TrainingConfig) -> Way:
        learner = new_learner(config, torch.device("cpu"))
        views = streams.as_views(config)
        images = (5 if config.compares_with_other_films else 4) * BATCH
        return Way(images, lambda: take_step(learner, views, config, 0))

    return {
        "naive": Way(5 * BATCH, lambda: naive_step(naive.network, naive.optimizer, streams)),
        "paper": trainer(paper),
        "paper, bf16": trainer(paper.model_copy(update={"precision": "bf16"})),
        "best": trainer(with_side(PRESETS["best"], side)),
    }


def with_side(config: TrainingConfig, side: int) -> TrainingConfig:
    """The same configuration at one image side."""
    return checked_config(config.model_dump() | {"stages": [{"side": side, "steps": 100}]})


def parts_of_a_step(config: TrainingConfig, side: int, rounds: int) -> dict[str, float]:
    """Median seconds of the parts of a step with masks and labels, for 10 images each."""
    learner = new_learner(config, torch.device("cpu"))
    streams = Streams.drawn(side)
    network = learner.network.train()
    device_type = torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")

    def forward() -> object:
        with device_type:
            return network(streams.masked, masks=False)

    def with_saliency() -> object:
        with device_type:
            return network(streams.masked, masks=False, saliency=True)

    def with_masks() -> object:
        with device_type:
            return network(streams.masked)

    def with_backward() -> None:
        with device_type:
            output = network(streams.masked)
            loss = dice_loss(output.mask_logits, streams.masks) + output.logits.float().sum()
        torch.autograd.backward(loss)

    whole = {
        "encoder, forward": forward,
        "saliency": with_saliency,
        "decoder, forward": with_masks,
        "backward": with_backward,
    }
    seconds = timed(whole, rounds)
    parts: dict[str, float] = {}
    before = 0.0
    for name in whole:
        parts[name] = max(0.0, seconds[name] - before)
        before = seconds[name]
    parts["optimizer"] = timed({"optimizer": learner.optimizer.step}, rounds)["optimizer"]
    return parts


def timed(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each; they take turns, after a first one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> int:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    compared = ways(options.side)
    seconds = timed({name: way.step for name, way in compared.items()}, options.rounds)
    rates = {name: way.images / seconds[name] for name, way in compared.items()}
    table = Table("way", "images a step", "s a step", "images/s", "times naive")
    for name, way in compared.items():
        table.add_row(
            name,
            str(way.images),
            f"{seconds[name]:.2f}",
            f"{rates[name]:.1f}",
            f"{rates[name] / rates['naive']:.2f}",
        )
    parts = {
        name: parts_of_a_step(with_side(PRESETS[name], options.side), options.side, options.rounds)
        for name in ("paper", "best")
    }
    shown = Table("part, 10 images", *parts, title="where the time goes, s")
    for part in parts["paper"]:
        shown.add_row(part, *(f"{found[part]:.3f}" for found in parts.values()))
    console = Console()
    console.print(table, shown)
    figures = {
        "side": options.side,
        "threads": options.threads,
        "seconds": seconds,
        "images_per_second": rates,
        "parts": parts,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
