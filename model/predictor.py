"""A loaded model that reads one film at a time: what the worker, batch and evaluation call."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit
from torch import Tensor

from dicom_io.errors import CheckpointError
from model.checkpoint import ModelCard, read_model
from model.gate import Gate, read_gate
from model.mirroring import MirrorAveraged
from model.network import MultiMixNetwork, NetworkOutput, as_network_input

# A third component of this share of the largest is still taken for lung: a lobe cut off by a wide
# opacity, not a speck outside the thorax.
SMALLEST_LOBE_SHARE = 0.15
SALIENCY_BLUR_PIXELS = 3.0


@dataclass(frozen=True)
class Prediction:
    """What the network says about one film.

    Attributes:
        probability: calibrated probability of pneumonia, in [0, 1].
        is_pneumonia: whether it reaches the operating point.
        lung_probability_hw: float32 in [0, 1], (side, side); specks removed, holes filled.
        saliency_hw: float32 in [0, 1], (side, side); smoothed, its 99.5th percentile is 1.
        gate_score: how unlike the training films the image is; None if the model has no gate.
        is_unlike_training: whether the gate refuses the image; the rest means nothing then.
    """

    probability: float
    is_pneumonia: bool
    lung_probability_hw: NDArray[np.float32]
    saliency_hw: NDArray[np.float32]
    gate_score: float | None = None
    is_unlike_training: bool = False


@dataclass(frozen=True)
class GateVerdict:
    """How unlike the training films an image is, and whether too much; a model may have no gate."""

    score: float | None = None
    refuses: bool = False


class Predictor:
    """A network with its card, ready to read films; safe to share between threads."""

    def __init__(
        self,
        network: MultiMixNetwork,
        card: ModelCard,
        device: str = "cpu",
        gate: Gate | None = None,
    ) -> None:
        self.card = card
        self._gate = gate
        self._device = torch.device(device)
        # Frozen parameters spare the gradient pass a tenth of its time; only the input needs one.
        self._network = network.eval().requires_grad_(False).to(self._device)
        self._reader = MirrorAveraged(self._network) if card.average_mirrored else self._network

    @classmethod
    def load(cls, model_directory: Path, device: str = "cpu") -> "Predictor":
        """Load a model directory.

        Raises:
            CheckpointError: the directory is missing, damaged or of another preprocessing version.
        """
        network, card = read_model(model_directory)
        gate = read_gate(model_directory, card.gate) if card.gate is not None else None
        if gate is not None and len(gate.centre) != network.features:
            raise CheckpointError(
                f"the gate in {model_directory} is of another network; copy the model directory "
                "again"
            )
        return cls(network, card, device, gate)

    def predict(self, image_hw: NDArray[np.uint8]) -> Prediction:
        """Read one film.

        Args:
            image_hw: uint8, (side, side), from ``model.image_table.served_image`` with the card's
                ``input_side``.
        """
        return self.predict_batch(image_hw[None])[0]

    def predict_batch(self, images_nhw: NDArray[np.uint8]) -> list[Prediction]:
        """Read several films at once; the same answers as one by one, up to rounding."""
        images = torch.from_numpy(np.array(images_nhw)).to(self._device)
        films = as_network_input(images)
        with torch.no_grad():
            output = self._reader(films, saliency=True)
        probabilities = self.probabilities(output.logits)
        verdicts = self._gate_verdicts(films, output)
        return [
            self._prediction(float(probabilities[i]), verdicts[i], output, i)
            for i in range(len(images_nhw))
        ]

    def probabilities(self, logits: Tensor) -> NDArray[np.float64]:
        """Calibrated probabilities of pneumonia, (batch,), from logits (batch, 2)."""
        return calibrated(
            margins(logits), self.card.calibration.scale, self.card.calibration.offset
        )

    def _gate_verdicts(self, films: Tensor, output: NetworkOutput) -> list[GateVerdict]:
        """What the gate says of each film, which it compares with the film's negative, too.

        Of a film and its negative the film is the likelier radiograph; where the negative is, the
        film came inverted, which a network that sees local contrast may well take for another
        patient.
        """
        if self._gate is None or self.card.gate is None:
            return [GateVerdict()] * len(films)
        with torch.no_grad():
            negative = self._network(-films, masks=False)
        scores = self._gate.scores(output.features.double().cpu().numpy())
        of_negative = self._gate.scores(negative.features.double().cpu().numpy())
        refused = (scores > self.card.gate.threshold) | (scores > of_negative)
        return [
            GateVerdict(float(score), bool(is_refused))
            for score, is_refused in zip(scores, refused, strict=True)
        ]

    def _prediction(
        self, probability: float, verdict: GateVerdict, output: NetworkOutput, index: int
    ) -> Prediction:
        if output.mask_logits is None or output.saliency is None:
            raise AssertionError("the network was asked for masks and saliency")
        lungs_hw = torch.sigmoid(output.mask_logits[index, 0]).cpu().numpy()
        return Prediction(
            probability=probability,
            is_pneumonia=probability >= self.card.calibration.operating_point,
            lung_probability_hw=clean_lung_probability(lungs_hw),
            saliency_hw=readable_saliency(output.saliency[index, 0].cpu().numpy()),
            gate_score=verdict.score,
            is_unlike_training=verdict.refuses,
        )


def margins(logits: Tensor) -> NDArray[np.float64]:
    """Pneumonia logit minus normal logit, (batch,)."""
    return (logits[:, 1] - logits[:, 0]).double().cpu().numpy()


def calibrated(margins_n: NDArray[np.float64], scale: float, offset: float) -> NDArray[np.float64]:
    """Platt scaling: sigmoid(scale * margin + offset)."""
    return np.asarray(expit(scale * margins_n + offset), dtype=np.float64)


def clean_lung_probability(probability_hw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove what cannot be lung: specks beside the largest components, and holes inside them.

    Args:
        probability_hw: float32 in [0, 1], (side, side).

    Returns:
        The same map, 0 in removed components and 1 in filled holes; a map without any lung pixel
        is returned as it is.
    """
    parts_hw, count = ndimage.label(probability_hw >= 0.5)
    if count == 0:
        return probability_hw
    areas = np.bincount(parts_hw.ravel())[1:]
    kept = np.flatnonzero(areas >= max(areas.max() * SMALLEST_LOBE_SHARE, 1)) + 1
    lungs_hw = np.isin(parts_hw, kept)
    cleaned_hw = probability_hw.copy()
    cleaned_hw[(parts_hw > 0) & ~lungs_hw] = 0.0
    cleaned_hw[ndimage.binary_fill_holes(lungs_hw) & ~lungs_hw] = 1.0
    return cleaned_hw


def readable_saliency(gradient_hw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth a raw input gradient and scale it to [0, 1] for display.

    Single-pixel gradients are speckle; what a reader can use is where they gather.
    """
    smooth_hw = ndimage.gaussian_filter(gradient_hw.astype(np.float32), SALIENCY_BLUR_PIXELS)
    brightest = float(np.percentile(smooth_hw, 99.5))
    if brightest <= 0:
        return np.zeros_like(smooth_hw)
    return np.asarray(np.clip(smooth_hw / brightest, 0.0, 1.0), dtype=np.float32)
