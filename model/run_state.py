"""Everything a training run needs to go on, bit for bit: safetensors and JSON, never a pickle.

What is random depends on seed and step alone, so no state of a random generator is kept.
"""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dicom_io.errors import TrainingError
from model.learner import Learner


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        best_score: of the model that was kept, of whatever image side.
        seconds: spent training so far.
        due_score: the best of the validations that were due at ``due_side``, for early stopping:
            one more where a start was stopped may keep its model, but does not decide when the run
            ends.
        due_side: image side in pixels at which ``due_score`` was measured; 0 before that.
        validations_since_gain: how many that were due scored no better in a row.
        loss_sums: each term of the loss, and what is watched beside, since the last validation.
        steps_summed: how many steps those sums hold.
        training_data_sha256: of what the run learns from; empty where it was not recorded.
        held_out_sha256: of the films that choose the model; likewise.
        began_with: what the card says of the model whose weights the run began with, or empty.
        version: of the model on its card; empty where it was not recorded.
    """

    step: int = 0
    best_score: float = float("-inf")
    seconds: float = 0.0
    due_score: float = float("-inf")
    due_side: int = 0
    validations_since_gain: int = 0
    loss_sums: dict[str, float] = field(default_factory=dict)
    steps_summed: int = 0
    training_data_sha256: str = ""
    held_out_sha256: str = ""
    began_with: dict[str, Any] = field(default_factory=dict)
    version: str = ""

    def after_step(self, figures: dict[str, float], seconds: float) -> "TrainingState":
        """The state after one more step.

        Args:
            figures: its loss terms and what is watched beside them.
            seconds: spent training, this step included.
        """
        sums = {name: self.loss_sums.get(name, 0.0) + value for name, value in figures.items()}
        return replace(
            self,
            step=self.step + 1,
            seconds=seconds,
            loss_sums=sums,
            steps_summed=self.steps_summed + 1,
        )

    @property
    def means(self) -> dict[str, float]:
        """What ``loss_sums`` holds, averaged over the steps since the last validation."""
        return {name: value / self.steps_summed for name, value in self.loss_sums.items()}

    def is_best(self, score: float) -> bool:
        """Whether a model of this score is to be kept.

        Of equal scores the later one is, having learnt for longer.
        """
        return score >= self.best_score

    def after_validation(self, score: float, side: int) -> "TrainingState":
        """The state after a validation that was due, with the sums started anew.

        A new image side starts worse than the last one ended, so patience counts anew.
        """
        before = self.due_score if side == self.due_side else -math.inf
        return replace(
            self,
            best_score=max(self.best_score, score),
            due_score=max(before, score),
            due_side=side,
            validations_since_gain=0 if score > before else self.validations_since_gain + 1,
            loss_sums={},
            steps_summed=0,
        )

    def after_extra_validation(self, score: float) -> "TrainingState":
        """The state after a validation that was not due: only the best model may be another.

        So a run that is stopped and resumed, however often, has the patience of one that is not.
        """
        return replace(self, best_score=max(self.best_score, score))


def write_state(folder: Path, state: TrainingState, learner: Learner) -> None:
    """Write a run's state; a stop in the middle leaves the last one intact."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for prefix, module in _modules(learner):
        for name, value in module.state_dict().items():
            tensors[f"{prefix}.{name}"] = value.detach().clone().contiguous()
    for number, moments in learner.optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value).clone().contiguous()
    weights = folder / f"step-{state.step}.safetensors"
    unfinished_weights = weights.with_suffix(".part")
    save_file(tensors, unfinished_weights)
    unfinished_weights.replace(weights)
    unfinished = folder / "state.json.part"
    unfinished.write_text(json.dumps(asdict(state) | {"weights": weights.name}))
    unfinished.replace(folder / "state.json")
    for older in folder.glob("step-*.safetensors"):
        if older != weights:
            older.unlink()


def read_state(folder: Path, learner: Learner) -> TrainingState:
    """Restore network, teacher, thresholds and optimizer.

    Raises:
        TrainingError: there is no state, or it is damaged or of another network.
    """
    state, weights = _read_progress(folder)
    try:
        tensors = load_file(folder / weights)
    except (OSError, SafetensorError) as cause:
        raise _damaged(folder) from cause
    try:
        for prefix, module in _modules(learner):
            module.load_state_dict(_with_prefix(tensors, f"{prefix}."))
    except RuntimeError as cause:
        raise TrainingError(f"{folder} holds the state of another network") from cause
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = value
    learner.optimizer.load_state_dict(
        {"state": moments, "param_groups": learner.optimizer.state_dict()["param_groups"]}
    )
    return state


def read_progress(folder: Path) -> TrainingState:
    """Where a run stands, without its weights.

    Raises:
        TrainingError: there is no state, or it is damaged.
    """
    state, _ = _read_progress(folder)
    return state


def _read_progress(folder: Path) -> tuple[TrainingState, str]:
    """The state and the name of the file with its weights."""
    try:
        content = json.loads((folder / "state.json").read_text())
        weights = str(content.pop("weights"))
        if "due_side" not in content:
            # Earlier states hold scores of masks on the grid of a stage, which do not compare.
            for name in ("best_side", "best_score", "due_score"):
                content.pop(name, None)
        return TrainingState(**content), weights
    except OSError as cause:
        raise TrainingError(f"nothing to resume in {folder}; start without --resume") from cause
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise _damaged(folder) from cause


def _damaged(folder: Path) -> TrainingError:
    return TrainingError(f"the state in {folder} is damaged; start anew")


def _modules(learner: Learner) -> tuple[tuple[str, nn.Module], ...]:
    return (
        ("student", learner.network),
        ("teacher", learner.teacher),
        ("thresholds", learner.thresholds),
    )


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
