"""Film brightness and contrast taken out, place by place, before the network looks.

Two hospitals expose, process and window their films differently; what is left here is how each
pixel stands out from its surroundings, in units of what is usual around it. A network that sees
only that cannot take a scanner for a disease, and finds lungs on films unlike those it learnt from
(``docs/experiments.md`` has the figures).
"""

from torch import Tensor
from torch.nn import functional as F

# The window is an eighth of the side wide: wider than a rib space, narrower than a lung.
_SIDES_PER_REACH = 16
# Flat areas, such as air, are not blown up into noise. In units of the image's range of 2.
_SMALLEST_SPREAD = 0.04
_LARGEST = 4.0
_SCALE = 0.5


def local_contrast(images: Tensor) -> Tensor:
    """Each pixel's difference from its surroundings, divided by the spread there.

    Args:
        images: float in [-1, 1], (batch, 1, height, width); differentiable.

    Returns:
        float32 in [-2, 2], same shape; the same for ``a * images + b`` with any b and, where the
        film is not flat, any a > 0.
    """
    pixels = images.float()
    reach = images.shape[-1] // _SIDES_PER_REACH
    difference = pixels - _surroundings(pixels, reach)
    spread = _surroundings(difference**2, reach).clamp_min(1e-6).sqrt()
    return (difference / (spread + _SMALLEST_SPREAD)).clamp(-_LARGEST, _LARGEST) * _SCALE


def _surroundings(pixels: Tensor, reach: int) -> Tensor:
    """A mean over a window that falls off linearly: two boxes, each by rows and by columns."""
    for _ in range(2):
        padded = F.pad(pixels, (reach,) * 4, mode="reflect")
        pixels = _running_mean(_running_mean(padded, reach, dim=2), reach, dim=3)
    return pixels


def _running_mean(pixels: Tensor, reach: int, dim: int) -> Tensor:
    """Mean of ``2 * reach + 1`` neighbours, shorter by ``2 * reach``; as cheap for any width."""
    width = 2 * reach + 1
    sums = F.pad(pixels.cumsum(dim), (0, 0, 1, 0) if dim == 2 else (1, 0))
    count = sums.shape[dim] - width
    return (sums.narrow(dim, width, count) - sums.narrow(dim, 0, count)) / width
