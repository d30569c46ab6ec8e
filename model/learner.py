"""What learns, and one step of it."""

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.distributed import ALONE, Ranks, split_over, sum_gradients
from model.network import MultiMixNetwork
from model.objective import step_losses
from model.thresholds import AdaptiveThresholds, FixedThresholds, thresholds_for
from model.views import StepViews


@dataclass(frozen=True)
class Learner:
    """What learns.

    Attributes:
        network: whose weights the optimizer moves.
        teacher: a slow average of ``network``, or ``network`` itself; it is what is served.
        optimizer: of ``network``.
        thresholds: how sure the teacher has to be of a pseudo-label.
    """

    network: MultiMixNetwork
    teacher: MultiMixNetwork
    optimizer: torch.optim.Optimizer
    thresholds: FixedThresholds | AdaptiveThresholds

    @property
    def learning_rate(self) -> float:
        """Of the step that was taken last."""
        return float(self.optimizer.param_groups[0]["lr"])


@dataclass(frozen=True)
class TakenStep:
    """What a step was like, before it was taken.

    Attributes:
        losses: the weighted terms of the loss, by name.
        watched: what ``StepLosses`` says beside them.
    """

    losses: dict[str, float]
    watched: dict[str, float]


def new_learner(config: TrainingConfig, device: torch.device) -> Learner:
    """A freshly initialised learner; the seed decides its weights."""
    torch.manual_seed(config.seed)
    network = MultiMixNetwork(config.network_shape).to(device)
    teacher = deepcopy(network).requires_grad_(False) if config.teacher_decay else network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    thresholds = thresholds_for(config.pseudo_label_threshold).to(device)
    return Learner(network, teacher, optimizer, thresholds)


def take_step(
    learner: Learner,
    views: StepViews,
    config: TrainingConfig,
    step: int,
    ranks: Ranks = ALONE,
    time_gone: float = 0.0,
) -> TakenStep:
    """Move the network once, and its teacher after it.

    Args:
        learner: what learns.
        views: what the step learns from.
        config: every hyperparameter.
        step: counted from 0; decides the learning rate and, with seed and rank, dropout.
        ranks: the processes that take this step together; all of them end with the same weights.
        time_gone: see ``learning_rate_at``; the same in all processes.

    Raises:
        TrainingError: the loss is not finite; the learner is left as it was.
    """
    network, teacher, optimizer = learner.network, learner.teacher, learner.optimizer
    # Dropout, too, depends on the step, and each process drops elements of other images.
    torch.manual_seed(config.seed * 1_000_003 + step + (ranks.rank << 40))
    network.train()
    teacher.train(teacher is network)
    device_type = next(network.parameters()).device.type
    with torch.autocast(device_type, torch.bfloat16, enabled=config.precision == "bf16"):
        found = step_losses(
            split_over(network, ranks),
            split_over(teacher, ranks),
            learner.thresholds,
            views,
            config,
        )
        loss = torch.stack(list(found.terms.values())).sum()
    taken = TakenStep(_as_numbers(found.terms), _as_numbers(found.watched))
    if not math.isfinite(sum(taken.losses.values())):
        raise TrainingError(f"the loss is not finite at step {step}; lower the learning rate")
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(config, step, time_gone)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    sum_gradients(list(network.parameters()), ranks)
    if config.largest_gradient_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), config.largest_gradient_norm)
    optimizer.step()
    if teacher is not network:
        follow(teacher, network, config.teacher_decay, step)
    return taken


def _as_numbers(scalars: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in scalars.items()}


def learning_rate_at(config: TrainingConfig, step: int, time_gone: float = 0.0) -> float:
    """Adam's learning rate; every schedule starts anew after a self-supervised warm-up.

    Args:
        config: schedule and steps.
        step: counted from 0.
        time_gone: share of the run's time limit that is over. Where the time ends a run before its
            steps do, the rate falls with it, so that the run ends as calm as one of fewer steps.
    """
    first, steps = _fall_of(config, step)
    done = max((step - first) / steps, min(1.0, time_gone))
    if config.schedule == "step":
        return float(config.learning_rate * 0.1 ** int(done / config.step_share))
    ramp = min(1.0, (step - first + 1) / max(1, steps // 50))
    return float(config.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * done)))


def _fall_of(config: TrainingConfig, step: int) -> tuple[int, int]:
    """First step and number of steps of the part of the run in which the rate falls once."""
    if config.schedule == "cosine_by_stage":
        first, stage = config.stage_at(step)
        return first, stage.steps
    warm_up = config.warm_up_steps
    return (0, warm_up) if step < warm_up else (warm_up, config.total_steps - warm_up)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the teacher's weights towards the student's; fast at first, then by ``decay``."""
    decay = min(decay, (1 + step) / (10 + step))
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
