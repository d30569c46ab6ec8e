import pytest
import torch

from model.dropout import ByteDropout, random_bytes_like


def test_it_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    dropout = ByteDropout(0.25).train()
    kept = dropout(torch.ones(4, 16, 64, 64))
    assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.005)
    assert kept.mean() == pytest.approx(1.0, abs=0.01)
    assert torch.unique(kept).tolist() == pytest.approx([0.0, 4 / 3])


def test_it_does_nothing_in_evaluation_or_at_probability_zero():
    x = torch.randn(2, 3, 4, 4)
    assert ByteDropout(0.5).eval()(x) is x
    assert ByteDropout(0.0).train()(x) is x


def test_the_same_seed_drops_the_same_elements():
    x = torch.ones(2, 8, 9, 7)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(ByteDropout(0.5).train()(x))
    assert torch.equal(*drawn)


def test_gradients_pass_where_elements_do():
    torch.manual_seed(0)
    x = torch.ones(1, 4, 8, 8, requires_grad=True)
    y = ByteDropout(0.5).train()(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_byte_value_is_as_likely_in_every_layout(layout):
    torch.manual_seed(0)
    x = torch.empty(3, 5, 33, 31).contiguous(memory_format=layout)
    drawn = random_bytes_like(x)
    assert drawn.stride() == x.stride()
    assert drawn.float().mean() == pytest.approx(127.5, abs=2)
    top_bits = (drawn >= 128).float().mean()
    assert top_bits == pytest.approx(0.5, abs=0.02)
    # No neighbour repeats another: they come from different bytes.
    flat = drawn.flatten()
    assert (flat[1:] == flat[:-1]).float().mean() < 0.02
