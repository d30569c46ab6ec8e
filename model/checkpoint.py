"""A model as a folder: ``weights.safetensors`` and ``card.json``; never a pickle.

The card names everything that a reader of a result may ask of its model: what it was trained on
and under which licences, how well it did, how its probability was calibrated, where it says
"pneumonia", and the SHA-256 of the weights, which is checked at every load.
"""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dicom_io.errors import CheckpointError
from dicom_io.pixels import PREPROCESSING_VERSION
from model.config import Tasks
from model.gate import GateCard
from model.network import CLASSES, MultiMixNetwork, NetworkShape

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
INTENDED_USE = "For research use only. Not a medical device, not for diagnosis."


class Calibration(BaseModel):
    """Platt scaling of the pneumonia margin: probability = sigmoid(scale * margin + offset).

    Attributes:
        scale: > 0.
        offset: any.
        operating_point: the probability at and above which the verdict is pneumonia.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: float = Field(default=1.0, gt=0)
    offset: float = 0.0
    operating_point: float = Field(default=0.5, ge=0, le=1)


class ModelCard(BaseModel):
    """What a model says of itself.

    Attributes:
        name: of the model.
        version: part of every result's UID.
        intended_use: in one sentence.
        classes: in the order of the logits.
        input_side: rows and columns of the network's input, in pixels.
        preprocessing_version: of ``dicom_io.pixels`` that the weights were trained with.
        network: the fields of ``NetworkShape``.
        average_mirrored: whether an answer is the mean of those to the film and to its mirror
            image (``model.mirroring``).
        calibration: from margin to probability to verdict.
        gate: which images the model refuses; None if it answers all.
        weights_sha256: of the weights file.
        training_data_sha256: hash over the training rows' pixels, masks and labels.
        training_data: counts by source, licences, and what was left out.
        training_config: the run's configuration.
        metrics: as measured, by set.
        limitations: known ones, one sentence each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "MultiMix"
    version: str
    intended_use: str = INTENDED_USE
    classes: tuple[str, ...] = CLASSES
    input_side: int = Field(default=256, ge=32, le=4096, multiple_of=16)
    preprocessing_version: str = PREPROCESSING_VERSION
    network: dict[str, Any]
    average_mirrored: bool = False
    calibration: Calibration = Calibration()
    gate: GateCard | None = None
    weights_sha256: str = ""
    training_data_sha256: str = ""
    training_data: dict[str, Any] = Field(default_factory=dict)
    training_config: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    limitations: tuple[str, ...] = ()


def write_model(folder: Path, network: MultiMixNetwork, card: ModelCard) -> ModelCard:
    """Write a network and its card; the card is written last and names the weights' hash.

    Returns:
        The card as written.

    Raises:
        CheckpointError: a weight is no number, or too large for half precision; nothing is written.
    """
    require_numbers(network)
    weights = save(_halved(network))
    written = card.model_copy(
        update={
            "network": asdict(network.shape),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    unfinished_weights, unfinished_card = folder / "weights.part", folder / "card.part"
    unfinished_weights.write_bytes(weights)
    unfinished_card.write_text(written.model_dump_json(indent=2) + "\n")
    # The model that was here stays whole until both files of its successor are.
    unfinished_weights.replace(folder / WEIGHTS_FILE)
    unfinished_card.replace(folder / CARD_FILE)
    return written


def require_numbers(network: MultiMixNetwork) -> None:
    """Refuse a network that cannot be kept, since what is written of it would answer nothing.

    Raises:
        CheckpointError: a weight is no number, or too large for half precision.
    """
    if not _are_numbers(_halved(network)):
        raise CheckpointError(
            "the network has weights that are no numbers, or beyond half precision, so its answers "
            "would be none; lower the learning rate"
        )


def read_model(folder: Path) -> tuple[MultiMixNetwork, ModelCard]:
    """Read a network, in eval mode, and its card.

    Raises:
        CheckpointError: a file is missing or damaged, the hash differs from the card's, the card
            describes a network that this program does not know or the weights are not of, or they
            were trained with another preprocessing.
    """
    card = read_card(folder)
    weights_path = folder / WEIGHTS_FILE
    try:
        weights = weights_path.read_bytes()
    except OSError as cause:
        raise CheckpointError(f"{weights_path} cannot be read: {cause.strerror}") from cause
    found = hashlib.sha256(weights).hexdigest()
    if found != card.weights_sha256:
        raise CheckpointError(
            f"{weights_path} is damaged: its SHA-256 is {found}, "
            f"the card says {card.weights_sha256}; copy the model directory again"
        )
    if unknown := card.network.keys() - {field.name for field in fields(NetworkShape)}:
        raise CheckpointError(
            f"{folder} holds a network with {', '.join(sorted(unknown))}, which this program does "
            "not know; use the matching release"
        )
    try:
        network = _network_with(card.network, load(weights))
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as cause:
        raise CheckpointError(f"{weights_path} does not fit the network of its card") from cause
    if not _are_numbers(network.state_dict()):
        raise CheckpointError(f"{weights_path} holds weights that are no numbers; train again")
    return network.eval(), card


def _network_with(shape: dict[str, Any], weights: dict[str, Tensor]) -> MultiMixNetwork:
    """The network of a shape with these weights; takes no memory for a shape that has others."""
    with torch.device("meta"):
        network = MultiMixNetwork(TypeAdapter(NetworkShape).validate_python(shape))
    if not all(value.is_floating_point() for value in weights.values()):
        raise TypeError("weights are floating-point numbers")
    network.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _halved(network: MultiMixNetwork) -> dict[str, Tensor]:
    """The weights in half precision.

    It halves the file; the answers move by less than rounding a probability to 3 decimals would.
    """
    state = network.state_dict()
    return {name: value.detach().half().contiguous() for name, value in state.items()}


def _are_numbers(weights: dict[str, Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in weights.values())


def read_card(folder: Path) -> ModelCard:
    """Read and check a model's card.

    Raises:
        CheckpointError: it is missing, malformed, or of other classes or another preprocessing.
    """
    path = folder / CARD_FILE
    try:
        card = ModelCard.model_validate(json.loads(path.read_text()))
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise CheckpointError(f"{path} is no model card of this version") from cause
    if card.classes != CLASSES:
        raise CheckpointError(f"{folder} tells {card.classes} apart, this program {CLASSES}")
    if card.preprocessing_version != PREPROCESSING_VERSION:
        raise CheckpointError(
            f"{folder} was trained with preprocessing {card.preprocessing_version}, this program "
            f"has {PREPROCESSING_VERSION}; train again or use the matching release"
        )
    return card


def learnt_tasks(card: ModelCard) -> Tasks:
    """What a model was trained to do; its answers to anything else are noise.

    Raises:
        CheckpointError: the card tells of it in a way that this program does not know.
    """
    try:
        return Tasks.model_validate(card.training_config.get("tasks", {}))
    except ValidationError as cause:
        raise CheckpointError(
            f"the card of {card.name} {card.version} tells of other tasks than this program knows; "
            "use the matching release"
        ) from cause


def unlearnt(card: ModelCard) -> list[str]:
    """What a node needs and a model did not learn: lung masks, verdicts, or nothing of it.

    Raises:
        CheckpointError: see ``learnt_tasks``.
    """
    tasks = learnt_tasks(card)
    needed = {"lung masks": tasks.segment, "verdicts": tasks.classify}
    return [name for name, is_learnt in needed.items() if not is_learnt]
