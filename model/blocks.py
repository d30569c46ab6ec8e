"""What the encoder and the decoder of the network are built of."""

from typing import Literal

from torch import Tensor, nn

from model.dropout import ByteDropout
from model.normalisation import GroupNorm

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
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if residual else None
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        y: Tensor = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        dropped: Tensor = self.dropout(y)
        return dropped


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """The normalisation layer of a block; group norm has affine parameters, instance norm none."""
    if norm == "group":
        return GroupNorm(8, channels)
    return GroupNorm(channels, channels, affine=False)  # one channel a group is instance norm


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
