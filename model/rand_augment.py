"""The paper's strong view: random operations on each film, among them some that move it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def rand_augment(images: Tensor, generator: torch.Generator, operations: int = 2) -> Tensor:
    """The paper's strong view: ``operations`` random operations on each image.

    The pool is the paper's (RandAugment): auto-contrast, brightness, contrast, equalise,
    posterise, rotate 30, sharpness, shear 0.3, solarise, translate 0.3; magnitudes uniform.

    Args:
        images: float in [-1, 1], (batch, 1, side, side).
        generator: source of every draw.
        operations: how many operations, drawn with replacement, each image goes through.
    """
    changed = []
    for image in images:
        for choice in torch.randint(len(RAND_AUGMENT_POOL), (operations,), generator=generator):
            magnitude = float(torch.rand(1, generator=generator))
            sign = 1.0 if torch.rand(1, generator=generator) < 0.5 else -1.0
            image = RAND_AUGMENT_POOL[int(choice)](image, magnitude, sign)
        changed.append(image)
    return torch.stack(changed).clamp(-1, 1)


def _auto_contrast(image: Tensor, magnitude: float, sign: float) -> Tensor:
    low, high = image.min(), image.max()
    return (image - low) / (high - low).clamp_min(1e-6) * 2 - 1


def _brightness(image: Tensor, magnitude: float, sign: float) -> Tensor:
    return (image + 1) * (0.05 + 0.9 * magnitude) - 1


def _contrast(image: Tensor, magnitude: float, sign: float) -> Tensor:
    return image.mean() + (image - image.mean()) * (0.05 + 0.9 * magnitude)


def _equalise(image: Tensor, magnitude: float, sign: float) -> Tensor:
    levels = ((image + 1) * 127.5).round().clamp(0, 255).long()
    counts = torch.bincount(levels.flatten(), minlength=256).cumsum(0).float()
    return (counts / counts[-1])[levels] * 2 - 1


def _posterise(image: Tensor, magnitude: float, sign: float) -> Tensor:
    steps: int = 2 ** (8 - round(4 * magnitude))
    return ((image + 1) / 2 * (steps - 1)).round() / (steps - 1) * 2 - 1


def _sharpness(image: Tensor, magnitude: float, sign: float) -> Tensor:
    blurred = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="reflect"), 3, stride=1)[0]
    return blurred + (image - blurred) * (0.05 + 0.9 * magnitude)


def _solarise(image: Tensor, magnitude: float, sign: float) -> Tensor:
    return torch.where(image > 1 - 2 * magnitude, -image, image)


def _rotate(image: Tensor, magnitude: float, sign: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(30.0 * magnitude * sign))
    c, s = float(torch.cos(angle)), float(torch.sin(angle))
    return _warp(image, [[c, -s, 0.0], [s, c, 0.0]])


def _shear_x(image: Tensor, magnitude: float, sign: float) -> Tensor:
    return _warp(image, [[1.0, 0.3 * magnitude * sign, 0.0], [0.0, 1.0, 0.0]])


def _shear_y(image: Tensor, magnitude: float, sign: float) -> Tensor:
    return _warp(image, [[1.0, 0.0, 0.0], [0.3 * magnitude * sign, 1.0, 0.0]])


def _translate_x(image: Tensor, magnitude: float, sign: float) -> Tensor:
    return _warp(image, [[1.0, 0.0, 0.6 * magnitude * sign], [0.0, 1.0, 0.0]])


def _translate_y(image: Tensor, magnitude: float, sign: float) -> Tensor:
    return _warp(image, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.6 * magnitude * sign]])


def _warp(image: Tensor, rows: list[list[float]]) -> Tensor:
    """One affine map; what comes from outside the film is as dark as air."""
    grid = F.affine_grid(torch.tensor([rows]), [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None] + 1, grid, align_corners=False)[0] - 1


RAND_AUGMENT_POOL: tuple[Callable[[Tensor, float, float], Tensor], ...] = (
    _auto_contrast,
    _brightness,
    _contrast,
    _equalise,
    _posterise,
    _sharpness,
    _solarise,
    _rotate,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
