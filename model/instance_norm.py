"""Instance norm that is fast in both directions on a CPU.

Instance norm is a batch norm of one image, and a group norm of one channel a group; PyTorch has its
own kernel for neither, and copies what has its channels innermost. With the channels innermost its
batch norm is by far the faster one on the way back, and on the way forwards where maps are small;
its group norm is the faster one forwards where they are not.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Pixels of a map; of smaller ones PyTorch's group norm gathers channel by channel from all of
# memory, which takes thirty times as long.
_SMALL_MAP = 1024


class InstanceNorm(nn.InstanceNorm2d):
    """``torch.nn.InstanceNorm2d`` without weights: the same figures, sooner."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each image of (batch, channels, height, width)."""
        if x.is_cuda:
            return super().forward(x)
        apply: Callable[..., Tensor] = _InstanceNorm.apply
        return apply(x.contiguous(memory_format=torch.channels_last), self.eps)


class _InstanceNorm(torch.autograd.Function):
    """For (batch, channels, height, width) with the channels innermost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        normalised, mean, reciprocal_spread = _normalised(x, eps)
        ctx.eps = eps
        ctx.save_for_backward(x, mean, reciprocal_spread)
        return normalised

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, mean, reciprocal_spread = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        ones = torch.ones_like(mean[0])
        of_x = torch.empty_like(x)
        for i in range(len(x)):
            of_x[i : i + 1], _, _ = torch.ops.aten.native_batch_norm_backward(
                gradient[i : i + 1],
                x[i : i + 1],
                ones,
                None,
                None,
                mean[i],
                reciprocal_spread[i],
                True,
                ctx.eps,
                [True, False, False],
            )
        return of_x, None


def _normalised(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised maps, and of each map the mean and the reciprocal of the spread.

    Returns:
        As x; (batch, channels); (batch, channels). The latter two are never in half precision.
    """
    count, channels, height, width = x.shape
    # A weight in single precision has the statistics of half-precision maps taken in it, too.
    ones = torch.ones(channels, dtype=torch.promote_types(x.dtype, torch.float32))
    zeros = torch.zeros_like(ones)
    if height * width >= _SMALL_MAP:
        normalised, mean, reciprocal_spread = torch.native_group_norm(
            x, ones, zeros, count, channels, height * width, channels, eps
        )
        return normalised, mean.view(count, channels), reciprocal_spread.view(count, channels)
    of_images = [
        torch.native_batch_norm(image, ones, zeros, None, None, True, 0.0, eps)
        for image in torch.split(x, 1)
    ]
    maps, means, reciprocal_spreads = zip(*of_images, strict=True)
    return torch.cat(maps), torch.stack(means), torch.stack(reciprocal_spreads)
