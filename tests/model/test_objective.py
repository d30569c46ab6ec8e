import pytest
import torch
from torch.nn import functional as F

from model.losses import bernoulli_kl, dice_loss, mask_consistency
from model.network import MultiMixNetwork, NetworkShape
from model.objective import step_losses
from model.presets import configure
from model.thresholds import thresholds_for
from model.views import Batch, StepViews, UnlabelledViews

TERMS = {
    "unet": {"dice"},
    "enc": {"ce"},
    "encssl": {"ce", "pseudo"},
    "umtl": {"dice", "ce"},
    "umtls": {"dice", "ce"},
    "umtl-ssl": {"dice", "ce", "pseudo"},
    "umtl-ssl-s": {"dice", "ce", "pseudo"},
    "multimix": {"dice", "ce", "pseudo", "unlabelled_mask"},
}


def narrow(config, seed=0) -> MultiMixNetwork:
    torch.manual_seed(seed)
    shape = vars(config.network_shape) | {"channels": (8, 8, 8, 8, 16), "dropout": 0.0}
    return MultiMixNetwork(NetworkShape(**shape)).eval()


def losses_of(network, teacher, seen, config):
    thresholds = thresholds_for(config.pseudo_label_threshold)
    return step_losses(network, teacher, thresholds, seen, config).terms


def views(config, count=3, side=32) -> StepViews:
    generator = torch.Generator().manual_seed(5)

    def images():
        return torch.rand(count, 1, side, side, generator=generator) * 2 - 1

    def batch():
        seen = images()
        return Batch(seen, (seen > 0).float(), torch.tensor([0, 1, 1]))

    tasks = config.tasks
    unlabelled = UnlabelledViews(images(), images())
    return StepViews(
        labelled=batch() if tasks.classify else None,
        masked=batch() if tasks.segment else None,
        unlabelled=unlabelled if tasks.pseudo_labels or tasks.unlabelled_masks else None,
        unmasked=batch() if config.compares_with_other_films else None,
    )


@pytest.mark.parametrize(("model", "terms"), TERMS.items())
def test_each_table_models_loss_has_just_its_terms(model, terms):
    config = configure("paper", model=model)
    network = narrow(config)
    found = losses_of(network, network, views(config), config)
    assert set(found) == terms
    assert all(torch.isfinite(value) for value in found.values())


def gradient_sum(module):
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("model", TERMS)
def test_a_model_teaches_no_head_that_it_does_not_have(model):
    config = configure("paper", model=model)
    network = narrow(config)
    losses = losses_of(network, network, views(config), config)
    torch.stack(list(losses.values())).sum().backward()
    assert gradient_sum(network.encoder) > 0
    assert (gradient_sum(network.decoder) > 0) is config.tasks.segment
    assert (gradient_sum(network.classifier) > 0) is config.tasks.classify


@pytest.mark.parametrize("term", ["paired_kl", "prior_kl", "consistency"])
def test_the_unlabelled_mask_term_teaches_the_decoder_from_unlabelled_images(term):
    config = configure(
        "best",
        overrides=(f"unlabelled_mask_term={term}", "unlabelled_mask_threshold=0.5"),
    )
    network = narrow(config)
    losses = losses_of(network, narrow(config, seed=1), views(config), config)
    losses["unlabelled_mask"].backward()
    assert losses["unlabelled_mask"].item() > 0
    assert gradient_sum(network.decoder) > 0


def test_a_patchwork_is_compared_with_the_masks_of_both_of_its_films():
    config = configure("best", overrides=("strong_view=patchwork", "unlabelled_mask_threshold=0.5"))
    network, seen = narrow(config), views(config).unlabelled
    is_other = torch.zeros_like(seen.weak, dtype=torch.bool)
    is_other[..., :16, :] = True
    patchwork = UnlabelledViews(seen.weak, seen.strong, is_other)
    found = losses_of(network, network, StepViews(unlabelled=patchwork), config)
    weak, strong = network(seen.weak).mask_logits, network(seen.strong).mask_logits
    both = torch.cat([weak.roll(1, 0)[..., :16, :], weak[..., 16:, :]], dim=2)
    expected = config.unlabelled_mask_weight * mask_consistency(both, strong, 0.5)
    torch.testing.assert_close(found["unlabelled_mask"], expected)


def test_each_term_carries_its_weight():
    config = configure("paper")
    network, seen = narrow(config), views(configure("paper"))
    found = losses_of(network, network, seen, config)
    masked = network(seen.masked.images)
    unmasked = network(seen.unmasked.images)
    dice = dice_loss(masked.mask_logits, seen.masked.masks)
    kl = bernoulli_kl(masked.mask_logits, unmasked.mask_logits)
    torch.testing.assert_close(found["dice"], 5 * dice)
    torch.testing.assert_close(found["unlabelled_mask"], 0.01 * kl)
    labelled = network(seen.labelled.images, masks=False).logits
    torch.testing.assert_close(found["ce"], F.cross_entropy(labelled, seen.labelled.classes))


def test_pseudo_labels_come_from_the_teacher_and_teach_the_network_alone():
    config = configure("best", overrides=("pseudo_label_threshold=0",))
    network, teacher = narrow(config), narrow(config, seed=1)
    losses_of(network, teacher, views(config), config)["pseudo"].backward()
    assert gradient_sum(network) > 0
    assert gradient_sum(teacher) == 0


def test_a_step_says_how_many_pseudo_labels_count():
    for threshold, share in ((0, 1.0), (1, 0.0)):
        config = configure("paper", overrides=(f"pseudo_label_threshold={threshold}",))
        network = narrow(config)
        found = step_losses(network, network, thresholds_for(threshold), views(config), config)
        assert found.watched["pseudo_labelled"].item() == share
    unwatched = configure("paper", model="umtl")
    network = narrow(unwatched)
    found = step_losses(network, network, thresholds_for(0.7), views(unwatched), unwatched)
    assert found.watched == {}


def test_no_pseudo_label_reaches_a_threshold_of_one():
    config = configure("paper", overrides=("pseudo_label_threshold=1",))
    network = narrow(config)
    pseudo = losses_of(network, network, views(config), config)["pseudo"]
    pseudo.backward()
    assert pseudo.item() == 0
    assert gradient_sum(network) == 0


def test_labels_of_images_drawn_for_their_mask_count_where_annotations_are_shared():
    alone = configure("paper", model="umtl")
    shared = configure("paper", model="umtl", overrides=("share_annotations=true",))
    network, seen = narrow(alone), views(alone)
    logits = torch.cat(
        [network(part.images, masks=False).logits for part in (seen.labelled, seen.masked)]
    )
    expected = F.cross_entropy(logits, torch.cat([seen.labelled.classes, seen.masked.classes]))
    torch.testing.assert_close(losses_of(network, network, seen, shared)["ce"], expected)
    assert losses_of(network, network, seen, alone)["ce"] != expected


def test_unlabelled_images_among_the_masked_ones_add_no_class_loss():
    config = configure("paper", model="umtl", overrides=("share_annotations=true",))
    network, seen = narrow(config), views(config)
    unlabelled = Batch(seen.masked.images, seen.masked.masks, torch.full((3,), -1))
    found = losses_of(network, network, StepViews(seen.labelled, unlabelled, None), config)["ce"]
    without = losses_of(network, network, seen, configure("paper", model="umtl"))["ce"]
    torch.testing.assert_close(found, without)
