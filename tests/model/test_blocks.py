import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.blocks import Shortcut, doubled


@pytest.mark.parametrize("inputs", [1, 3])
def test_a_shortcut_is_a_1x1_convolution_both_ways(inputs):
    torch.manual_seed(0)
    ours, theirs = Shortcut(inputs, 8, 1, bias=False), nn.Conv2d(inputs, 8, 1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    films = torch.randn(2, inputs, 12, 20)
    found = []
    for convolution in (ours, theirs):
        x = films.clone().requires_grad_()
        y = convolution(x)
        y.square().sum().backward()
        found.append((y, x.grad, convolution.weight.grad))
    for mine, reference in zip(*found, strict=True):
        torch.testing.assert_close(mine, reference)


def pytorchs_doubled(x):
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def test_maps_are_doubled_as_pytorch_does_both_ways_and_keep_their_channels_innermost():
    drawn = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    beside = torch.ones(2, 3, 12, 20)
    found, comes_back_innermost = [], []
    for way in (doubled, pytorchs_doubled):
        x = drawn.contiguous(memory_format=torch.channels_last).requires_grad_()
        y = way(x)
        y.grad_fn.register_prehook(
            lambda gradients: comes_back_innermost.append(
                gradients[0].is_contiguous(memory_format=torch.channels_last)
            )
        )
        # As in the decoder: the gradient that comes back is a part of one with more channels.
        joined = torch.cat([y, beside], dim=1).contiguous(memory_format=torch.channels_last)
        joined.square().sum().backward()
        found.append((y, x.grad))
    for mine, reference in zip(*found, strict=True):
        torch.testing.assert_close(mine, reference)
    assert found[0][1].is_contiguous(memory_format=torch.channels_last)
    assert comes_back_innermost == [True, False], "which is all that PyTorch's way lacks"
