"""What the encoder and the decoder of the network are built of."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.dropout import ByteDropout
from model.group_norm import GroupNorm
from model.instance_norm import InstanceNorm

Norm = Literal["instance", "group"]


class DoubleConvolution(nn.Module):
    """(3x3 convolution, normalisation, LeakyReLU 0.2) twice, then dropout."""

    def __init__(
        self, inputs: int, outputs: int, norm: Norm, dropout: float, residual: bool
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            normalisation(norm, outputs),
            nn.LeakyReLU(0.2),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            normalisation(norm, outputs),
            nn.LeakyReLU(0.2),
        )
        self.shortcut = Shortcut(inputs, outputs, 1, bias=False) if residual else None
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        y: Tensor = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        dropped: Tensor = self.dropout(y)
        return dropped


class Shortcut(nn.Conv2d):
    """A 1x1 convolution; that of a single channel is a product, which is its faster form."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        if self.in_channels > 1:
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """The normalisation layer of a block; group norm has affine parameters, instance norm none."""
    return GroupNorm(8, channels) if norm == "group" else InstanceNorm(channels)


class Context(nn.Module):
    """Three bottlenecks of dilated convolutions around the deepest features.

    The deepest block sees about half of a film of 256 px; a diaphragm behind an opacity is found by
    where the other one is. The bottlenecks begin as nothing, so a network without them can be
    continued with them, and they cost little, since the deepest features are small.
    """

    DILATIONS = (2, 4, 8)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bottlenecks = nn.ModuleList(bottleneck(channels, d) for d in self.DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        for block in self.bottlenecks:
            x = x + block(x)
        return x


def bottleneck(channels: int, dilation: int) -> nn.Sequential:
    """Half as many channels around a dilated 3x3 convolution; zero until it has learnt."""
    inner = channels // 2
    last = nn.Conv2d(inner, channels, 1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1),
        GroupNorm(8, inner),
        nn.LeakyReLU(0.2),
        nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation),
        GroupNorm(8, inner),
        nn.LeakyReLU(0.2),
        last,
    )


def doubled(x: Tensor) -> Tensor:
    """Maps (batch, channels, height, width) of twice the height and width, bilinear."""
    larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    if larger.requires_grad:
        # What the maps are joined with lies between their gradients; PyTorch would go back channel
        # by channel, which takes five times as long.
        larger.register_hook(_innermost)  # type: ignore[no-untyped-call]
    return larger


def _innermost(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
