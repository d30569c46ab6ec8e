"""Dropout that costs little on a CPU.

PyTorch draws 64 random bits for each element there and keeps one of them, which takes a quarter of
a training step. Here each element gets a byte.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BYTE_VALUES = 256


class ByteDropout(nn.Module):
    """Element-wise dropout whose probability is rounded to a 256th; the mean is kept exactly."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped_values = round(probability * _BYTE_VALUES)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training, keep all otherwise."""
        if not self.training or not self.dropped_values:
            return x
        share = self.dropped_values / _BYTE_VALUES
        if x.is_cuda:
            return F.dropout(x, share)
        # 1 where a byte is not below the dropped values, else 0: the same as comparing them, but
        # numbers are converted eight times as fast as truth values.
        highest_dropped = self.dropped_values - 1
        kept = random_bytes_like(x).clamp_(highest_dropped, self.dropped_values) - highest_dropped
        return x * (kept.to(x.dtype) * (1 / (1 - share)))

    def extra_repr(self) -> str:
        """What the probability really is."""
        return f"probability={self.dropped_values / _BYTE_VALUES}"


def random_bytes_like(x: Tensor) -> Tensor:
    """uint8 of the shape and memory layout of ``x``, uniform, from PyTorch's default generator."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.uint8).as_strided(x.shape, x.stride())
