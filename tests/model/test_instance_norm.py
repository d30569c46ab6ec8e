import pytest
import torch
from torch import nn

from model.instance_norm import InstanceNorm

SIDES = [(12, 20), (40, 36)]  # one on either side of what counts as a small map


def maps(side, layout=torch.channels_last, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 16, *side, generator=generator) * 2 + 0.7
    return drawn.to(dtype).contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_gives_pytorchs_values_and_gradients_in_every_layout(side, layout):
    gradient = torch.randn(3, 16, *side, generator=torch.Generator().manual_seed(1))
    found = []
    for norm, x in ((InstanceNorm(16), maps(side, layout)), (nn.InstanceNorm2d(16), maps(side))):
        y = norm(x)
        y.backward(gradient)
        found.append((y, x.grad))
    for mine, reference in zip(*found, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_an_image_gets_the_same_values_whatever_is_beside_it(side):
    x = maps(side).detach()
    assert torch.equal(InstanceNorm(16)(x)[1:2], InstanceNorm(16)(x[1:2]))


@pytest.mark.parametrize("side", SIDES)
def test_the_channels_stay_innermost_both_ways(side):
    x = maps(side)
    y = InstanceNorm(16)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", SIDES)
def test_half_precision_stays_half_and_is_as_exact_as_it_can_be(side):
    x = maps(side, dtype=torch.bfloat16)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = InstanceNorm(16)(x)
    y.backward(gradient)
    reference = nn.InstanceNorm2d(16)(exact)
    reference.backward(gradient.double())
    assert (y.dtype, x.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    for mine, true in ((y, reference), (x.grad, exact.grad)):
        # Half a unit in the last of eight places.
        torch.testing.assert_close(mine.double(), true, rtol=2**-8, atol=2**-9)
