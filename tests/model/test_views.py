import pytest
import torch

from model import augment
from model.presets import configure
from model.splits import divide_as_configured
from model.streams import make_streams
from model.views import Batch, labelled_view, unlabelled_views, views_of_step, weak_view
from tests.model.films import film_table

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table():
    return film_table(24)


def views(table, config, step):
    pools = divide_as_configured(table.records, config)
    return views_of_step(
        table, pools, make_streams(table.records, pools, config), config, step, CPU
    )


def small(preset, *overrides):
    return configure(
        preset,
        overrides=(
            'stages=[{"side":64,"steps":10},{"side":96,"steps":10}]',
            "class_batch=4",
            "mask_batch=3",
            "unlabelled_batch=5",
            *overrides,
        ),
    )


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_a_step_sees_the_same_whatever_came_before(table, preset):
    config = small(preset)
    first, again = views(table, config, 7), views(table, config, 7)
    other = views(table, config, 8)
    for part in ("labelled", "masked"):
        assert torch.equal(getattr(first, part).images, getattr(again, part).images)
        assert not torch.equal(getattr(first, part).images, getattr(other, part).images)
    assert torch.equal(first.unlabelled.strong, again.unlabelled.strong)
    if preset == "paper":
        assert torch.equal(first.unmasked.images, again.unmasked.images)


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_a_film_that_is_drawn_again_is_seen_otherwise(table, preset):
    """Views are made anew in each pass; a cached pass would freeze the augmentation."""
    settings = ("labels=2", "class_batch=2", "balance_classes=false", "source_exponent=1")
    config = small(preset, *settings)
    steps = [views(table, config, step).labelled for step in range(4)]
    assert all(sorted(seen.classes.tolist()) == [0, 1] for seen in steps), "two films, each step"
    of_normal = [seen.images[seen.classes == 0] for seen in steps]
    for place, first in enumerate(of_normal):
        assert not any(torch.equal(first, other) for other in of_normal[place + 1 :])


def test_another_seed_sees_something_else(table):
    first, other = (views(table, small("best", f"seed={seed}"), 0) for seed in (0, 1))
    assert not torch.equal(first.masked.images, other.masked.images)


def test_each_stage_has_its_image_size(table):
    config = small("best")
    assert views(table, config, 9).masked.images.shape == (3, 1, 64, 64)
    assert views(table, config, 10).unlabelled.weak.shape == (5, 1, 96, 96)


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_weak_and_strong_views_show_the_same_images_in_the_same_order(table, preset):
    config = small(preset)
    images, masks = table.tensors(range(6), 64)
    images = images + torch.linspace(-0.3, 0.3, 6).view(6, 1, 1, 1)
    batch = Batch(images.clamp(-1, 1), masks, torch.zeros(6, dtype=torch.int64))
    hits = 0
    for seed in range(10):
        seen = unlabelled_views(batch, config, torch.Generator().manual_seed(seed))
        # The noise of one film is in no other: the same film correlates best with itself.
        weak = seen.weak - torch.nn.functional.avg_pool2d(seen.weak, 5, 1, 2)
        strong = seen.strong - torch.nn.functional.avg_pool2d(seen.strong, 5, 1, 2)
        similarity = torch.corrcoef(torch.cat([weak, strong]).flatten(1))[:6, 6:]
        hits += int((similarity.argmax(0) == torch.arange(6)).sum())
    assert hits > 60 * (0.9 if preset == "best" else 0.5)


def test_the_strong_view_starts_from_the_weak_one(table):
    images, masks = table.tensors(range(4), 64)
    batch = Batch(images, masks, torch.zeros(4, dtype=torch.int64))
    config = small("best")
    seen = unlabelled_views(batch, config, torch.Generator().manual_seed(3))
    # Replay the generator: geometry first, then exposure and cut-out of what it gave.
    generator = torch.Generator().manual_seed(3)
    geometry = augment.Geometry(rotate=config.rotate, scale=config.scale)
    moved = augment.move(images, masks, augment.affine_maps(4, geometry, generator))
    assert torch.equal(seen.weak, moved.images)
    expected = augment.cut_out(augment.vary_intensity(moved.images, generator), generator)
    assert torch.equal(seen.strong, expected)


def test_a_consistency_strong_view_keeps_the_weak_views_geometry(table):
    images, masks = table.tensors(range(8), 64)
    batch = Batch(images, masks, torch.zeros(8, dtype=torch.int64))
    seen = unlabelled_views(batch, small("best"), torch.Generator().manual_seed(0))
    smooth = [torch.nn.functional.avg_pool2d(v, 5, 1, 2) for v in (seen.weak, seen.strong)]
    # Ranks of grey survive any exposure; a shift of the strong view would break them.
    agreement = torch.corrcoef(torch.stack([s.flatten() for s in smooth]))[0, 1]
    assert float(agreement) > 0.7


def test_a_patchwork_says_where_it_shows_another_film(table):
    images, masks = table.tensors(range(8), 64)
    batch = Batch(images, masks, torch.zeros(8, dtype=torch.int64))
    config = small("best", "strong_view=patchwork")
    seen = unlabelled_views(batch, config, torch.Generator().manual_seed(0))
    shown = torch.where(seen.is_other, seen.weak.roll(1, 0), seen.weak)
    smooth = [torch.nn.functional.avg_pool2d(v, 5, 1, 2) for v in (shown, seen.strong)]
    assert float(torch.corrcoef(torch.stack([s.flatten() for s in smooth]))[0, 1]) > 0.8
    assert 0.02 < float(seen.is_other.float().mean()) < 0.36


def test_films_bend_where_the_configuration_says_so(table):
    images, masks = table.tensors(range(4), 64)
    batch = Batch(images, masks, torch.zeros(4, dtype=torch.int64))
    straight, bent = (
        weak_view(batch, small("best", f"bend={bend}"), torch.Generator().manual_seed(1))
        for bend in (0.0, 0.05)
    )
    assert not torch.equal(straight.images, bent.images)
    assert not torch.equal(straight.masks, bent.masks)


def test_every_augmentation_is_a_setting(table):
    images, masks = table.tensors(range(4), 64)
    batch = Batch(images, masks, torch.zeros(4, dtype=torch.int64))
    still = ("flip=0", "shift=0", "rotate=0", "scale=0")
    config = small("best", *still, "exposure=0", "cut_out=0")
    seen = unlabelled_views(batch, config, torch.Generator().manual_seed(1))
    torch.testing.assert_close(seen.weak, images, atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.strong, images, atol=1e-3, rtol=0)
    paper = small("paper", *still, "rand_augment_operations=0")
    seen = unlabelled_views(batch, paper, torch.Generator().manual_seed(1))
    assert torch.equal(seen.strong, seen.weak)


def test_labelled_images_are_re_exposed_to_their_share_and_blurred_like_the_others(table):
    images, masks = table.tensors(range(8), 64)
    batch = Batch(images, masks, torch.zeros(8, dtype=torch.int64))
    still = ("flip=0", "shift=0", "rotate=0", "scale=0")

    def seen(*overrides):
        config = small("best", *still, *overrides)
        return labelled_view(batch, config, torch.Generator().manual_seed(1)).images

    def roughness(films):
        return float((films[..., 1:] - films[..., :-1]).abs().mean())

    def change(films):
        return float((films - images).abs().mean())

    torch.testing.assert_close(seen("labelled_exposure=0"), images, atol=1e-3, rtol=0)
    assert 0 < change(seen("labelled_exposure=0.2")) < change(seen("labelled_exposure=1"))
    assert roughness(seen("labelled_exposure=0", "blur=0.03")) < 0.9 * roughness(images)


def test_images_with_masks_are_left_alone_in_the_papers_preset(table):
    seen = views(table, small("paper"), 0).masked
    images, _ = table.tensors(range(len(table.records)), 64)
    assert all(any(torch.equal(image, film) for film in images) for image in seen.images)


def test_masks_follow_their_augmented_images(table):
    for step in range(4):
        seen = views(table, small("best"), step).masked
        inside = torch.stack(
            [i[m > 0].mean() for i, m in zip(seen.images, seen.masks, strict=True)]
        )
        around = torch.nn.functional.max_pool2d(seen.masks, 9, 1, 4) - seen.masks
        outside = torch.stack([i[a > 0].mean() for i, a in zip(seen.images, around, strict=True)])
        assert bool((inside < outside).all()), "lungs are darker than what surrounds them"


def test_parts_of_tasks_that_are_off_are_not_drawn(table):
    unet = configure("paper", model="unet", overrides=('stages=[{"side":64,"steps":1}]',))
    seen = views(table, unet, 0)
    assert seen.labelled is None
    assert seen.unlabelled is None
    assert seen.masked is not None
