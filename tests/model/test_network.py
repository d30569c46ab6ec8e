import copy

import numpy as np
import pytest
import torch
from torch import nn

from model.network import MultiMixNetwork, NetworkShape, as_network_input

NARROW = NetworkShape(channels=(8, 8, 16, 16, 16), dropout=0.25)


def network(**changes) -> MultiMixNetwork:
    torch.manual_seed(0)
    return MultiMixNetwork(NetworkShape(**(vars(NARROW) | changes)))


def films(count=2, side=64, dtype=torch.float32):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_the_papers_shape_has_1965155_parameters():
    assert sum(p.numel() for p in MultiMixNetwork(NetworkShape()).parameters()) == 1_965_155


def test_the_papers_shape_has_the_layers_of_the_supplement():
    paper = MultiMixNetwork(NetworkShape()).eval()
    features = paper.encoder(films(1))
    assert [tuple(f.shape[1:]) for f in features] == [
        (16, 64, 64),
        (32, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
    ]
    first_convolutions = [block.body[0] for block in paper.decoder.blocks]
    assert [c.in_channels for c in first_convolutions] == [386, 192, 96, 48]
    assert [c.out_channels for c in first_convolutions] == [128, 64, 32, 16]


def test_every_output_has_its_shape():
    output = network()(films(3), saliency=True)
    assert output.logits.shape == (3, 2)
    assert output.mask_logits.shape == (3, 1, 64, 64)
    assert output.saliency.shape == (3, 1, 64, 64)
    assert output.features.shape == (3, 32)


def test_nothing_is_computed_that_was_not_asked_for():
    output = network()(films(), masks=False)
    assert output.mask_logits is None
    assert output.saliency is None
    assert network(bridge=False)(films()).saliency is None


@pytest.mark.parametrize("changes", [{}, {"encoder_norm": "group", "residual": True}])
def test_saliency_is_the_finite_difference_of_the_largest_logit(changes):
    model = network(**changes).double().eval()
    images = films(2, side=32, dtype=torch.float64)
    saliency = model(images, masks=False, saliency=True).saliency
    step = 1e-6
    by_size = saliency[0, 0].flatten().argsort(descending=True)
    sampled = [*by_size[:6].tolist(), *by_size[200::150].tolist()]
    for place in sampled:
        row, column = divmod(place, 32)
        moved = []
        for sign in (1, -1):
            changed = images.clone()
            changed[0, 0, row, column] += sign * step
            moved.append(float(model(changed, masks=False).logits[0].detach().max()))
        difference = abs(moved[0] - moved[1]) / (2 * step)
        assert float(saliency[0, 0, row, column]) == pytest.approx(difference, rel=1e-4, abs=1e-8)


def test_saliency_of_one_film_does_not_depend_on_the_others():
    model = network().double().eval()
    images = films(3, dtype=torch.float64)
    together = model(images, saliency=True).saliency
    alone = model(images[1:2], saliency=True).saliency
    torch.testing.assert_close(together[1:2], alone)


def test_reading_the_same_film_twice_gives_the_same_bits():
    model = network().eval()
    first, second = model(films()), model(films())
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.mask_logits, second.mask_logits)
    assert torch.equal(first.saliency, second.saliency)


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_leaves_every_modules_mode_as_it_was(training):
    model = network().train(training)
    model(films())
    assert all(module.training is training for module in model.modules())


def test_the_saliency_does_not_touch_the_parameters_gradients():
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    model(films(), saliency=True)
    with torch.no_grad():
        model(films(), saliency=True)
    assert all(bool((parameter.grad == 7).all()) for parameter in model.parameters())


def test_images_that_carry_a_gradient_of_their_own_are_left_alone():
    images = films().requires_grad_()
    network()(images, saliency=True)
    assert images.grad is None


def test_the_answers_are_the_same_without_gradients_and_with_frozen_parameters():
    model = network().eval()
    with_gradients = model(films())
    with torch.no_grad():
        without = model(films())
    frozen = copy.deepcopy(model).requires_grad_(False)(films())
    for other in (without, frozen):
        torch.testing.assert_close(other.logits, with_gradients.logits.detach())
        torch.testing.assert_close(other.mask_logits.detach(), with_gradients.mask_logits.detach())
        torch.testing.assert_close(other.saliency, with_gradients.saliency)
    assert not any(t.requires_grad for t in (without.logits, without.mask_logits))


def test_one_pass_with_the_bridge_still_teaches_every_parameter():
    model = network()
    output = model(films())
    (output.logits.sum() + output.mask_logits.sum()).backward()
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in weights)


def test_the_saliency_is_cut_from_the_graph():
    assert not network()(films()).saliency.requires_grad


@pytest.mark.parametrize("scale", ["raw", "per_image"])
def test_the_decoders_output_changes_when_the_bridge_is_zeroed(scale):
    model = network(bridge_scale=scale).eval()
    images = films()
    with torch.no_grad():
        output = model(images)
        features = model.encoder(images)
        bridge = model.bridge_input(images, output.saliency)
        torch.testing.assert_close(model.decoder(features, bridge), output.mask_logits)
        without = model.decoder(features, torch.zeros_like(bridge))
    assert float((without - output.mask_logits).abs().max()) > 1e-3


def test_the_bridges_saliency_has_mean_one_where_it_is_scaled_per_image():
    model = network(bridge_scale="per_image", bridge_pooling="area")
    saliency = films() * torch.tensor([1e-6, 1e-1]).view(2, 1, 1, 1)
    bridge = model.bridge_input(films(), saliency)
    torch.testing.assert_close(bridge[:, 1].mean(dim=(1, 2)), torch.ones(2))
    dark = model.bridge_input(films(), torch.zeros(2, 1, 64, 64))
    assert bool(torch.isfinite(dark).all())


def test_area_pooling_sees_every_pixel_and_bilinear_sampling_does_not():
    image, saliency = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    saliency[0, 0, 4, 4] = 64.0
    area = network(bridge_pooling="area").bridge_input(image, saliency)
    assert area.shape == (1, 2, 8, 8)
    assert float(area[0, 1, 0, 0]) == 1.0
    assert float(area[0, 1].sum()) == 1.0
    assert float(network(bridge_pooling="bilinear").bridge_input(image, saliency).sum()) == 0.0


def test_the_classifier_answers_alike_with_and_without_masks():
    model = network().eval()
    torch.testing.assert_close(model(films()).logits, model(films(), masks=False).logits)


def test_group_norm_goes_into_the_encoder_alone():
    model = network(encoder_norm="group").eval()

    def has_weights(part):
        norms = (nn.GroupNorm, nn.InstanceNorm2d)
        return {m.affine for m in part.modules() if isinstance(m, norms)}

    assert has_weights(model.encoder) == {True}
    assert has_weights(model.decoder) == {False}  # instance norm


def test_the_network_reads_black_as_minus_one_and_white_as_one():
    grey = torch.from_numpy(np.array([[[0, 255]]], dtype=np.uint8))
    assert as_network_input(grey).tolist() == [[[[-1.0, 1.0]]]]
