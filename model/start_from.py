"""A run that begins with the weights of a model instead of drawn ones."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from dicom_io.errors import TrainingError
from model.checkpoint import ModelCard, read_card, read_model
from model.config import TrainingConfig
from model.learner import Learner
from model.network import NetworkShape


def begin_with(learner: Learner, start_from: Path) -> dict[str, Any]:
    """Give the learner the weights of a model.

    A network that differs by the norm of its encoder alone takes over every filter and has to learn
    again what they mean; one without context gets a context that has no effect yet.

    Returns:
        What the new model's card says of it.

    Raises:
        CheckpointError: the model is damaged.
        TrainingError: it is another network than the configuration's.
    """
    network, earlier = read_model(start_from)
    wanted = learner.network.shape
    if differing := _differing(network.shape, wanted):
        raise TrainingError(
            f"{start_from} holds another network than the configuration describes: "
            f"{', '.join(differing)}; set what it has, or start without it"
        )
    for begins in (learner.network, learner.teacher):
        own = begins.state_dict()
        known = {name: tensor for name, tensor in network.state_dict().items() if name in own}
        begins.load_state_dict(own | known)
    return {
        "weights_sha256": earlier.weights_sha256,
        "training_data_sha256": earlier.training_data_sha256,
        "training_config": earlier.training_config,
    }


def _differing(held: NetworkShape, wanted: NetworkShape) -> list[str]:
    """What keeps a run from beginning with a network, and how it is there.

    The norm of the encoder may differ, and context may be added.
    """
    allowed = {"encoder_norm"} | ({"context"} if wanted.context else set())
    has = asdict(held)
    return [
        f"{name} is {has[name]} there, {value} here"
        for name, value in asdict(wanted).items()
        if value != has[name] and name not in allowed
    ]


def require_begun_with(start_from: Path, began_with: dict[str, Any], out: Path) -> None:
    """Refuse to go on as if a run had begun with another model than it has.

    Args:
        start_from: the model that is given now.
        began_with: from ``begin_with`` when the run began; empty where it began without a model.
        out: the run's folder.

    Raises:
        CheckpointError: the model given now cannot be read.
        TrainingError: the run did not begin with it.
    """
    if read_card(start_from).weights_sha256 != began_with.get("weights_sha256"):
        raise TrainingError(
            f"the run in {out} did not begin with {start_from}; leave --start-from out, or start "
            "another run"
        )


def warn_of_other_held_out(
    config: TrainingConfig, began_with: dict[str, Any], console: Console
) -> None:
    """Say that the model which the run begins with may have learnt films that are held out now.

    Args:
        config: of the run.
        began_with: from ``begin_with``; empty for a run that begins anew.
        console: where to say it.
    """
    earlier = began_with.get("training_config", {})
    differing = [
        f"{name} {earlier[name]}"
        for name in ("seed", "validation_share")
        if name in earlier and earlier[name] != getattr(config, name)
    ]
    if differing:
        console.print(
            f"warning: the model that this run begins with held out other patients (its "
            f"{' and '.join(differing)}); if it has seen these exports, it has learnt some that "
            "are held out now, which flatters every figure on them, calibration and gate included",
            style="yellow",
            soft_wrap=True,
            highlight=False,
        )


def noted(card: ModelCard, began_with: dict[str, Any]) -> ModelCard:
    """The card with a note of the model whose weights the run began with."""
    return card.model_copy(
        update={"training_config": card.training_config | {"began_with": began_with}}
    )
