"""Weak and strong views of a batch of films, with masks that move as their images do.

Geometry is one affine map for each image, applied to image and mask alike by the same grid;
intensity never moves a pixel. All functions take images in [-1, 1] (air is -1) and draw from the
generator they are given, so that a seed decides every view.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Along each side of a bent film; enough to move one lung against the other.
BENDING_POINTS = 5


@dataclass(frozen=True)
class Geometry:
    """How far one view may move; each is drawn uniformly within its range.

    Attributes:
        flip: probability of a horizontal flip.
        shift: largest shift, as a share of the side.
        rotate: largest rotation, in degrees.
        scale: largest relative change of size.
        shear: largest shear, as a share of the side.
    """

    flip: float = 0.5
    shift: float = 0.125
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0


class Views(NamedTuple):
    """Images (batch, 1, side, side) and masks of the same shape, moved alike."""

    images: Tensor
    masks: Tensor


def uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """``count`` numbers drawn uniformly from [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def affine_maps(count: int, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Draw one affine map for each image.

    Returns:
        float, (count, 2, 3), in the normalised coordinates of ``torch.nn.functional.affine_grid``.
    """
    angle = torch.deg2rad(uniform(generator, count, -geometry.rotate, geometry.rotate))
    shear = uniform(generator, count, -geometry.shear, geometry.shear)
    size = 1 + uniform(generator, count, -geometry.scale, geometry.scale)
    flip = 1 - 2 * (torch.rand(count, generator=generator) < geometry.flip).float()
    # A shift of one side is 2 in normalised coordinates, which run from -1 to 1.
    shift_x = 2 * uniform(generator, count, -geometry.shift, geometry.shift)
    shift_y = 2 * uniform(generator, count, -geometry.shift, geometry.shift)
    cosine, sine = torch.cos(angle) * size, torch.sin(angle) * size
    row_x = torch.stack([flip * cosine, flip * (shear * cosine - sine), shift_x], dim=1)
    row_y = torch.stack([sine, shear * sine + cosine, shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def bends(count: int, furthest: float, generator: torch.Generator) -> Tensor:
    """Draw how far each image is bent at 5 x 5 points spread over it.

    Args:
        count: images.
        furthest: largest displacement in each direction, as a share of the side.
        generator: source of every draw.

    Returns:
        float, (count, 2, 5, 5), x before y, in the normalised coordinates of ``affine_maps``.
    """
    drawn = uniform(generator, count * 2 * BENDING_POINTS**2, -2 * furthest, 2 * furthest)
    return drawn.view(count, 2, BENDING_POINTS, BENDING_POINTS)


def move(images: Tensor, masks: Tensor, maps: Tensor, bent: Tensor | None = None) -> Views:
    """Apply one map to each image and its mask; reflects at the border of the image.

    Args:
        images: float, (batch, 1, side, side).
        masks: float, (batch, 1, side, side); may hold any values, moved by nearest neighbour.
        maps: float, (batch, 2, 3); affine.
        bent: float, (batch, 2, 5, 5) of ``bends``: displacements beyond the affine map, smooth
            between their points; None for none.
    """
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    if bent is not None:
        side = images.shape[-2:]
        smooth = F.interpolate(bent, size=side, mode="bicubic", align_corners=True)
        grid = grid + smooth.permute(0, 2, 3, 1)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    moved_masks = F.grid_sample(
        masks, grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return Views(moved, moved_masks)


def vary_intensity(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Gamma, contrast, brightness, blur or sharpening, noise: other scanners and exposures.

    Args:
        images: float in [-1, 1], (batch, 1, side, side).
        generator: source of every draw.
        strength: 0 leaves the images alone, 1 is meant for training.

    Returns:
        float in [-1, 1], same shape.
    """
    count = len(images)

    def each(low: float, high: float) -> Tensor:
        return (strength * uniform(generator, count, low, high)).view(-1, 1, 1, 1)

    grey = ((images + 1) / 2).clamp(0, 1)
    grey = grey.clamp_min(1e-4) ** torch.exp(each(-0.5, 0.5))
    grey = (grey - 0.5) * (1 + each(-0.35, 0.35)) + 0.5 + each(-0.15, 0.15)
    blurred = F.avg_pool2d(F.pad(grey, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    grey = grey + each(-1.0, 1.0) * (grey - blurred)
    noise = torch.randn(images.shape, generator=generator)
    grey = grey + noise * each(0.0, 0.05)
    return (grey * 2 - 1).clamp(-1, 1)


def blur(images: Tensor, generator: torch.Generator, widest: float) -> Tensor:
    """Blur every other image or so, each by a Gaussian of its own width: coarser detectors.

    Args:
        images: float, (batch, 1, side, side).
        generator: source of every draw.
        widest: largest standard deviation, as a share of the side.
    """
    count, side = len(images), images.shape[-1]
    is_blurred = torch.rand(count, generator=generator) < 0.5
    spread = is_blurred * uniform(generator, count, 0, widest * side)
    reach = math.ceil(3 * widest * side)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / spread.clamp_min(1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).view(count, 1, 1, -1)
    # One image a channel, so that each has its own weights.
    padded = F.pad(images, (reach,) * 4, mode="reflect").transpose(0, 1)
    blurred_rows = F.conv2d(padded, weights, groups=count)
    return F.conv2d(blurred_rows, weights.transpose(2, 3), groups=count).transpose(0, 1)


def displace(images: Tensor, generator: torch.Generator, furthest: float = 0.03) -> Tensor:
    """Fetch each pixel from somewhere near it, up to a distance drawn for each image.

    Args:
        images: float, (batch, 1, side, side).
        generator: source of every draw.
        furthest: largest distance in each direction, as a share of the side.
    """
    count, _, height, width = images.shape
    identity = torch.eye(2, 3).expand(count, 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False)
    distance = uniform(generator, count, 0, 2 * furthest).view(-1, 1, 1, 1)
    offsets = torch.rand(count, height, width, 2, generator=generator) * 2 - 1
    near = grid + distance * offsets
    return F.grid_sample(images, near, padding_mode="reflection", align_corners=False)


def cut_out(images: Tensor, generator: torch.Generator, largest: float = 0.3) -> Tensor:
    """Grey out one rectangle of each image, up to ``largest`` of its side in each direction."""
    return images.masked_fill(rectangles(images, generator, largest), 0.0)


class Patchwork(NamedTuple):
    """Images with a part of another one in each.

    Attributes:
        images: float, (batch, 1, side, side).
        is_other: bool, same shape; where an image shows the one before it in the batch (the first
            one shows the last).
    """

    images: Tensor
    is_other: Tensor


def patch(images: Tensor, generator: torch.Generator, largest: float = 0.6) -> Patchwork:
    """Lay one rectangle of another image over each, where it is in that image, too."""
    is_other = rectangles(images, generator, largest)
    return Patchwork(torch.where(is_other, images.roll(1, 0), images), is_other)


def rectangles(images: Tensor, generator: torch.Generator, largest: float) -> Tensor:
    """One rectangle in each image, up to ``largest`` of its side in each direction.

    Returns:
        bool, of the shape of ``images``, (batch, 1, height, width).
    """
    count, _, height, width = images.shape
    rows, columns = torch.arange(height), torch.arange(width)

    def spans(side: int, positions: Tensor) -> Tensor:
        length = (uniform(generator, count, 0, largest) * side)[:, None]
        start = (uniform(generator, count, 0, 1) * side)[:, None] - length / 2
        return (positions[None] >= start) & (positions[None] < start + length)

    return spans(height, rows)[:, None, :, None] & spans(width, columns)[:, None, None, :]
