"""How sure a pseudo-label has to be before it counts: the paper's one number, or what adapts.

The adaptive thresholds are those of FreeMatch (Wang et al., ICLR 2023, equations 5 to 8): low while
the network is unsure of everything, rising with its confidence, and lower for a class that it finds
less often, so that the easy class does not crowd out the hard one.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from model.network import CLASSES

Threshold = float | Literal["adaptive"]
# Of the moving averages, for each step: a memory of some 100 steps.
_DECAY = 0.99


class Thresholds(Protocol):
    """Takes in what the teacher makes of a batch and tells how sure it has to be of each class."""

    def __call__(self, weak_logits: Tensor) -> Tensor:
        """Thresholds in [0, 1], (classes,), from logits of the weak views, (batch, classes)."""


class FixedThresholds(nn.Module):
    """The same threshold for every class and step: t of equation 1.

    Args:
        threshold: in [0, 1].
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self._threshold = threshold

    def forward(self, weak_logits: Tensor) -> Tensor:
        """See ``Thresholds``."""
        return torch.full_like(weak_logits[0].detach(), self._threshold, dtype=torch.float32)


class AdaptiveThresholds(nn.Module):
    """Thresholds that follow the network's confidence; the buffers are saved with the run.

    Attributes:
        confidence: float scalar, moving average of the largest probability.
        shares: float, (classes,), moving average of the probability of each class.
    """

    confidence: Tensor
    shares: Tensor

    def __init__(self) -> None:
        super().__init__()
        # As sure as of a coin, and of every class alike: FreeMatch's beginning.
        even = torch.full((len(CLASSES),), 1 / len(CLASSES))
        self.register_buffer("confidence", even[0].clone())
        self.register_buffer("shares", even)

    @torch.no_grad()
    def forward(self, weak_logits: Tensor) -> Tensor:
        """See ``Thresholds``."""
        probabilities = weak_logits.float().softmax(dim=1)
        self.confidence.lerp_(probabilities.max(dim=1).values.mean(), 1 - _DECAY)
        self.shares.lerp_(probabilities.mean(dim=0), 1 - _DECAY)
        return self.confidence * self.shares / self.shares.max()


def thresholds_for(threshold: Threshold) -> FixedThresholds | AdaptiveThresholds:
    """The thresholds of a configuration, as they are before the first step."""
    return AdaptiveThresholds() if threshold == "adaptive" else FixedThresholds(threshold)
