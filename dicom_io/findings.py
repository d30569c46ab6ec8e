"""What the network found in one radiograph, in the terms that result objects are built from."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Verdict(Enum):
    """The network's answer at its operating point."""

    NORMAL = "normal"
    PNEUMONIA = "pneumonia"


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made a result.

    Attributes:
        name: the model's name, e.g. ``MultiMix``.
        version: the model's version; part of every derived UID, so a new one gives new objects.
        sha256: hash of the weights file, hexadecimal.
    """

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class LungMasks:
    """The two lungs of one radiograph on the source's own pixel grid.

    Attributes:
        right_hw: bool, (rows, columns); the patient's right lung.
        left_hw: bool, (rows, columns); the patient's left lung; disjoint from ``right_hw``.
        side_is_certain: whether the source says which side is which.
        side_evidence: where the sides come from, in words that a reader understands.
    """

    right_hw: NDArray[np.bool_]
    left_hw: NDArray[np.bool_]
    side_is_certain: bool
    side_evidence: str


@dataclass(frozen=True)
class Findings:
    """One radiograph, read.

    Attributes:
        model: the model that read it.
        verdict: pneumonia at or above ``operating_point``, else normal.
        probability: calibrated probability of pneumonia, in [0, 1].
        operating_point: the probability at which the verdict turns, in [0, 1].
        lungs: the lungs on the source's pixel grid.
        saliency_hw: float32 in [0, 1], (rows, columns): where the input moves the answer most.
        gate_score: how unlike the training images this one is; None if the model has no gate.
        gate_threshold: the score above which an image is refused; None if the model has no gate.
    """

    model: ModelIdentity
    verdict: Verdict
    probability: float
    operating_point: float
    lungs: LungMasks
    saliency_hw: NDArray[np.float32]
    gate_score: float | None = None
    gate_threshold: float | None = None
