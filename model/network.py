"""The MultiMix network: classify the film, segment the lungs, let the saliency bridge both.

::

    image --encoder--> features at 5 scales --head--> logits of (normal, pneumonia)
      |                      |                           |
      |                      |          saliency = |d largest logit / d image|
      |                      v                           v
      +--------------> [deepest features, skip, image and saliency / 8] --decoder--> mask logit

One encoder pass serves the logits, the skips and the input gradient. No optimizer lives here, no
mode is toggled, and no parameter's ``.grad`` is touched by the saliency, so the network can be
called in training, under ``no_grad`` and with frozen parameters alike.

With ``NetworkShape()`` it is the network of the MultiMix paper (Haque et al., ISBI 2021,
arXiv 2010.14731, supplement tables 1 and 2): 1,965,155 parameters.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks import Context, DoubleConvolution, Norm, doubled
from model.local_contrast import local_contrast

BridgeScale = Literal["raw", "per_image"]
BridgePooling = Literal["bilinear", "area"]

CLASSES = ("normal", "pneumonia")
BRIDGE_STRIDE = 8


def as_network_input(images_nhw: Tensor) -> Tensor:
    """Scale what ``dicom_io.pixels.network_image`` gives to what the network reads.

    Args:
        images_nhw: uint8, (batch, height, width).

    Returns:
        float32 in [-1, 1], (batch, 1, height, width).
    """
    return images_nhw[:, None].float() / 127.5 - 1


@dataclass(frozen=True)
class NetworkShape:
    """Everything that decides which tensors the network has and how they flow.

    Attributes:
        channels: channels of the five encoder blocks, finest first.
        dropout: element-wise dropout at the end of each block.
        encoder_norm: ``instance`` without affine parameters (the paper) or ``group`` with them.
            Instance norm takes out how strong a channel is in a film as a whole.
        residual: add a 1x1 shortcut around each encoder block.
        local_contrast: let the encoder see local contrast instead of brightness
            (``model.local_contrast``).
        context: let each place of the deepest features see all of the film (``Context``).
        bridge: feed image and saliency into the decoder.
        bridge_scale: ``raw`` gradients (the paper; about 1e-3 beside an image of order 1) or each
            saliency map divided by its own mean.
        bridge_pooling: bilinear sampling by 8 (the paper; reads 4 of each 64 pixels) or area.
    """

    channels: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    dropout: float = 0.25
    encoder_norm: Norm = "instance"
    residual: bool = False
    local_contrast: bool = False
    context: bool = False
    bridge: bool = True
    bridge_scale: BridgeScale = "raw"
    bridge_pooling: BridgePooling = "bilinear"


class NetworkOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        logits: float, (batch, 2); normal, pneumonia.
        mask_logits: float, (batch, 1, height, width), or None where no masks were asked for.
        saliency: float >= 0, (batch, 1, height, width), detached; None where it was not computed.
        features: float, (batch, 2 * channels[-1]), detached; mean and standard deviation of each
            channel of the deepest block: what ``model.gate`` compares.
    """

    logits: Tensor
    mask_logits: Tensor | None
    saliency: Tensor | None
    features: Tensor


class Encoder(nn.Module):
    """Five double convolutions with 2x2 max-pooling between them."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.local_contrast = shape.local_contrast
        widths = (1, *shape.channels)
        self.blocks = nn.ModuleList(
            DoubleConvolution(
                widths[i], widths[i + 1], shape.encoder_norm, shape.dropout, shape.residual
            )
            for i in range(5)
        )
        self.context = Context(shape.channels[-1]) if shape.context else None

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of (batch, 1, height, width), finest first, each half the size of the last."""
        features: list[Tensor] = []
        x = local_contrast(images) if self.local_contrast else images
        for depth, block in enumerate(self.blocks):
            x = block(x if depth == 0 else F.max_pool2d(x, 2))
            features.append(x)
        if self.context is not None:
            features[-1] = self.context(x)
        return features


class Decoder(nn.Module):
    """Bilinear upsampling with skip connections; the bridge enters its first block."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = shape.channels
        bridge_channels = 2 if shape.bridge else 0
        self.blocks = nn.ModuleList(
            DoubleConvolution(inputs, outputs, "instance", shape.dropout, residual=False)
            for inputs, outputs in (
                (c5 + c4 + bridge_channels, c4),
                (c4 + c3, c3),
                (c3 + c2, c2),
                (c2 + c1, c1),
            )
        )
        self.to_mask = nn.Conv2d(c1, 1, 1)

    def forward(self, features: list[Tensor], bridge: Tensor | None) -> Tensor:
        """Mask logits (batch, 1, height, width) from the encoder's features and the bridge."""
        x = features[-1]
        for block, skip in zip(self.blocks, reversed(features[:-1]), strict=True):
            joined = [doubled(x), skip]
            if bridge is not None:
                joined.append(bridge.to(x.dtype, memory_format=torch.channels_last))
                bridge = None
            x = block(torch.cat(joined, dim=1))
        logits: Tensor = self.to_mask(x)
        return logits


class MultiMixNetwork(nn.Module):
    """Encoder, classification head and decoder with the saliency bridge."""

    def __init__(self, shape: NetworkShape | None = None) -> None:
        super().__init__()
        self.shape = shape or NetworkShape()
        self.encoder = Encoder(self.shape)
        self.classifier = nn.Linear(self.shape.channels[-1], len(CLASSES))
        self.decoder = Decoder(self.shape)
        # With the channels innermost a CPU convolves wide, shallow maps up to five times as fast.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, images: Tensor, *, masks: bool = True, saliency: bool = False
    ) -> NetworkOutput:
        """Read a batch of films.

        Args:
            images: float in [-1, 1], (batch, 1, height, width); sides divisible by 16.
            masks: whether mask logits are wanted.
            saliency: whether saliency is wanted even where no bridge needs it.

        Returns:
            Logits always; mask logits and saliency as asked for.
        """
        needs_saliency = saliency or (masks and self.shape.bridge)
        if not needs_saliency:
            features = self.encoder(images)
            logits = self._classify(features[-1])
            mask_logits = self.decoder(features, None) if masks else None
            return NetworkOutput(logits, mask_logits, None, statistics(features[-1]))

        # The caller's graph is kept where it has one; under no_grad the graph lives only as long
        # as the input gradient needs it.
        keeps_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            leaves = images.detach().requires_grad_()
            features = self.encoder(leaves)
            logits = self._classify(features[-1])
            (gradient,) = torch.autograd.grad(
                logits.float().max(dim=1).values.sum(), leaves, retain_graph=keeps_graph
            )
        saliency_map = gradient.detach().abs()
        if not keeps_graph:
            features = [feature.detach() for feature in features]
            logits = logits.detach()
        mask_logits = None
        if masks:
            bridge = self.bridge_input(images, saliency_map) if self.shape.bridge else None
            mask_logits = self.decoder(features, bridge)
        return NetworkOutput(logits, mask_logits, saliency_map, statistics(features[-1]))

    @property
    def features(self) -> int:
        """How many numbers ``NetworkOutput.features`` holds for each film."""
        return 2 * self.shape.channels[-1]

    def bridge_input(self, images: Tensor, saliency_map: Tensor) -> Tensor:
        """Image and saliency at an eighth of the size: what the decoder is guided by.

        Returns:
            float, (batch, 2, height / 8, width / 8).
        """
        if self.shape.bridge_scale == "per_image":
            saliency_map = saliency_map / saliency_map.mean(dim=(2, 3), keepdim=True).clamp_min(
                1e-12
            )
        both = torch.cat([images, saliency_map.to(images.dtype)], dim=1)
        if self.shape.bridge_pooling == "area":
            return F.avg_pool2d(both, BRIDGE_STRIDE)
        return F.interpolate(
            both, scale_factor=1 / BRIDGE_STRIDE, mode="bilinear", align_corners=True
        )

    def _classify(self, deepest: Tensor) -> Tensor:
        """Max-pool, global average, linear: (batch, c, h, w) to logits."""
        logits: Tensor = self.classifier(F.max_pool2d(deepest, 2).mean(dim=(2, 3)))
        return logits


def statistics(features: Tensor) -> Tensor:
    """Mean and standard deviation of each channel: (batch, c, h, w) to (batch, 2 * c), detached."""
    detached = features.detach().float()
    return torch.cat([detached.mean(dim=(2, 3)), detached.std(dim=(2, 3))], dim=1)
