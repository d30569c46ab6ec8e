"""The out-of-distribution gate: does an image look like the films that the model learnt from?

A network answers any image, a leg or a photograph too, and the answer looks like any other. The
gate measures how far the statistics of the encoder's deepest features lie from those of the
training films: a Mahalanobis distance along their principal directions, and beside it what those
directions do not explain. Beyond the distance that nearly all held-out films stay within, no
answer is given. Neither is one given where the image's negative lies nearer to them than the image
itself (``model.predictor``). One Gaussian for all classes, after Lee et al., NeurIPS 2018 (arXiv
1807.03888).
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dicom_io.errors import CheckpointError

GATE_FILE = "gate.safetensors"


class GateCard(BaseModel):
    """What a model's card says of its gate.

    Attributes:
        threshold: the score above which an image is refused.
        fitted_on: training films that the distances refer to.
        held_out: films that set the threshold; none of them was learnt from.
        sha256: of the gate's file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float = Field(gt=0)
    fitted_on: int = Field(ge=1)
    held_out: int = Field(ge=1)
    sha256: str


@dataclass(frozen=True)
class Gate:
    """Where the training films lie among all features.

    Attributes:
        centre: float64, (features,): their mean.
        spread: float64, (features,): their standard deviation.
        directions: float64, (directions, features): principal, of unit length.
        variances: float64, (directions,): along them, descending.
        rest_variance: float64, (1,): what the directions do not explain, in all.
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    directions: NDArray[np.float64]
    variances: NDArray[np.float64]
    rest_variance: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together.

        Raises:
            ValueError: a shape differs from the others', or a number is none.
        """
        directions, features = self.directions.shape
        shapes = [part.shape for part in (self.centre, self.spread, self.variances)]
        if [*shapes, self.rest_variance.shape] != [(features,), (features,), (directions,), (1,)]:
            raise ValueError("the parts of a gate are of different shapes")
        scales = np.concatenate([self.spread, self.variances, self.rest_variance])
        numbers = np.concatenate([self.centre, self.directions.ravel(), scales])
        if not (np.isfinite(numbers).all() and (scales > 0).all()):
            raise ValueError("a gate holds finite numbers, and its scales are above 0")

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """How unlike the training films some images are.

        Args:
            features: (images, features), from ``NetworkOutput.features``.

        Returns:
            (images,), >= 0; about 2 for a training film, infinite for features that are no numbers.
        """
        standard = (features - self.centre) / self.spread
        along = standard @ self.directions.T
        beside = ((standard - along @ self.directions) ** 2).sum(axis=1)
        scores = (along**2 / self.variances).mean(axis=1) + beside / self.rest_variance
        return np.where(np.isfinite(scores), scores, np.inf)


def write_gate(folder: Path, gate: Gate, card: GateCard) -> GateCard:
    """Write a gate into a model directory.

    Returns:
        Its card, which names the file's hash; it belongs on the model's card.
    """
    content = save(asdict(gate))
    unfinished = folder / "gate.part"
    unfinished.write_bytes(content)
    unfinished.replace(folder / GATE_FILE)
    return card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})


def read_gate(folder: Path, card: GateCard) -> Gate:
    """Read the gate of a model directory.

    Raises:
        CheckpointError: it is missing, damaged, or not the one that the card names.
    """
    path = folder / GATE_FILE
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read: {cause.strerror}") from cause
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is {found}, the card says {card.sha256}; "
            "copy the model directory again"
        )
    try:
        tensors: dict[str, Any] = load(content)
        return Gate(**tensors)
    except (SafetensorError, TypeError, ValueError, KeyError) as cause:
        raise CheckpointError(f"{path} is no gate of this version") from cause
