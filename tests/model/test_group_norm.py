import pytest
import torch
from torch import nn

from model.group_norm import GroupNorm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("groups", "affine"), [(4, True), (16, False)])
def test_it_gives_pytorchs_values_and_gradients_in_every_layout(layout, groups, affine):
    torch.manual_seed(0)
    ours, theirs = GroupNorm(groups, 16, affine=affine), nn.GroupNorm(groups, 16, affine=affine)
    if affine:
        nn.init.normal_(ours.weight)
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 16, 12, 20)
    gradient = torch.randn(3, 16, 12, 20)
    found = []
    for norm, image in ((ours, x.contiguous(memory_format=layout)), (theirs, x.clone())):
        image.requires_grad_()
        y = norm(image)
        y.backward(gradient)
        found.append([y, image.grad, *(p.grad for p in norm.parameters())])
    for mine, reference in zip(*found, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_one_channel_a_group_is_instance_norm():
    x = torch.randn(2, 6, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(GroupNorm(6, 6, affine=False)(x), nn.InstanceNorm2d(6)(x))


def test_the_layout_is_kept_both_ways():
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = GroupNorm(8, 8)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_frozen_norm_still_lets_the_gradient_through():
    norm = GroupNorm(4, 8).requires_grad_(False)
    x = torch.randn(1, 8, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(norm(x).square().sum(), x)
    assert gradient.abs().sum() >= 0
    assert norm.weight.grad is None


def test_half_precision_stays_half():
    x = torch.randn(2, 8, 16, 16).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = GroupNorm(4, 8)(x)
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
    assert (y.dtype, gradient.dtype) == (torch.bfloat16, torch.bfloat16)
