import pytest
import torch

from model.local_contrast import local_contrast
from tests.model.films import draw_film


def film(side=256):
    pixels = torch.from_numpy(draw_film(1, pneumonia=True).image_hw)[None, None].float()
    return torch.nn.functional.interpolate(pixels, (side, side), mode="area") / 127.5 - 1


@pytest.mark.parametrize(("gain", "offset"), [(0.6, 0.0), (1.0, -0.3), (0.5, 0.4)])
def test_another_exposure_looks_the_same(gain, offset):
    image = film()
    other = gain * image + offset
    moved = (local_contrast(other) - local_contrast(image)).abs().mean()
    assert moved < 0.25 * local_contrast(image).abs().mean()
    assert moved < 0.25 * (other - image).abs().mean() / image.std()


def test_what_stands_out_still_does():
    image = torch.full((1, 1, 64, 64), -0.5)
    image[..., 30:34, 30:34] += 0.4
    seen = local_contrast(image)
    assert seen[..., 30:34, 30:34].min() > 0.5
    assert seen[..., :16, :16].abs().max() < 1e-3


def test_flat_air_is_not_blown_up_into_noise():
    torch.manual_seed(0)
    air = -1 + 0.002 * torch.randn(1, 1, 64, 64)
    assert local_contrast(air).abs().max() < 0.15


def test_values_stay_within_their_range_and_gradients_are_finite():
    image = torch.sign(torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)))
    image.requires_grad_()
    seen = local_contrast(image)
    assert seen.abs().max() <= 2
    seen.square().sum().backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().sum() > 0


def test_a_black_image_has_finite_gradients():
    image = torch.full((1, 1, 64, 64), -1.0, requires_grad=True)
    local_contrast(image).square().sum().backward()
    assert torch.isfinite(image.grad).all()


def test_the_window_grows_with_the_film():
    small, large = local_contrast(film(128)), local_contrast(film(256))
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    correlation = torch.corrcoef(torch.stack([small.flatten(), shrunk.flatten()]))[0, 1]
    assert correlation > 0.9
