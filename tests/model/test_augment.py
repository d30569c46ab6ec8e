import pytest
import torch

from model import augment
from model.augment import Geometry
from model.rand_augment import rand_augment
from tests.model.films import blobs

EVERYTHING = Geometry(flip=0.5, shift=0.125, rotate=30, scale=0.2, shear=0.2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def centre_of(images):
    """Mean row and column of the brightness, (batch, 2)."""
    weight = (images + 1).squeeze(1)
    weight = weight / weight.sum((1, 2), keepdim=True)
    rows = (weight.sum(2) * torch.arange(weight.shape[1])).sum(1)
    columns = (weight.sum(1) * torch.arange(weight.shape[2])).sum(1)
    return torch.stack([rows, columns], dim=1)


@pytest.mark.parametrize("seed", range(5))
def test_masks_move_as_their_images_do(seed):
    images, masks = blobs()
    moved = augment.move(images, masks, augment.affine_maps(6, EVERYTHING, generator(seed)))
    agreement = ((moved.images > 0).float() == moved.masks).float().mean((1, 2, 3))
    assert float(agreement.min()) > 0.98
    assert not torch.equal(moved.masks, masks)
    assert set(moved.masks.unique().tolist()) <= {0.0, 1.0}


def test_a_map_without_any_range_leaves_images_alone():
    images, masks = blobs()
    still = Geometry(flip=0, shift=0)
    moved = augment.move(images, masks, augment.affine_maps(6, still, generator()))
    torch.testing.assert_close(moved.images, images, atol=1e-4, rtol=0)
    assert torch.equal(moved.masks, masks)


def test_a_certain_flip_mirrors_left_and_right():
    images, masks = blobs()
    flip = Geometry(flip=1, shift=0)
    moved = augment.move(images, masks, augment.affine_maps(6, flip, generator()))
    torch.testing.assert_close(moved.images, images.flip(3), atol=1e-4, rtol=0)
    assert torch.equal(moved.masks, masks.flip(3))


def blur(images, generator):
    return augment.blur(images, generator, 0.02)


def test_half_of_all_images_are_flipped():
    maps = augment.affine_maps(2000, Geometry(), generator())
    assert float((maps[:, 0, 0] < 0).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_shifts_reach_an_eighth_of_the_side_and_no_further():
    images, masks = blobs(1)
    images = images.expand(200, -1, -1, -1)
    shift = Geometry(flip=0, shift=0.125)
    moved = augment.move(
        images, masks.expand(200, -1, -1, -1), augment.affine_maps(200, shift, generator())
    )
    brightest = moved.images.flatten(1).argmax(1)
    rows = (brightest // 64 - 24).abs()
    assert int(rows.max()) <= 8
    assert int(rows.max()) >= 7


def test_rotation_stays_within_its_range():
    maps = augment.affine_maps(1000, Geometry(flip=0, shift=0, rotate=12), generator())
    angles = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 0, 0])).abs()
    assert 11 < float(angles.max()) <= 12 + 1e-4


def test_what_a_shift_uncovers_is_reflected_and_not_black():
    images = torch.ones(8, 1, 32, 32)
    maps = augment.affine_maps(8, Geometry(shift=0.125), generator())
    assert float(augment.move(images, images, maps).images.min()) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_masks_bend_as_their_images_do(seed):
    images, masks = blobs()
    still = augment.affine_maps(6, Geometry(flip=0, shift=0), generator())
    bent = augment.bends(6, 0.08, generator(seed))
    moved = augment.move(images, masks, still, bent)
    agreement = ((moved.images > 0).float() == moved.masks).float().mean((1, 2, 3))
    assert float(agreement.min()) > 0.98
    assert not torch.equal(moved.masks, masks)


def test_a_bend_moves_one_side_of_a_film_against_the_other_and_no_pixel_far():
    side, count = 64, 200
    columns = torch.arange(side).float().expand(count, 1, side, side)
    still = augment.affine_maps(count, Geometry(flip=0, shift=0), generator())
    bent = augment.bends(count, 0.05, generator())
    fetched_from = augment.move(columns, columns, still, bent).images
    moved = (fetched_from - columns)[:, 0, 32, 8:-8]  # reflection at the border is no bend
    # A smooth curve through points may swing a little beyond them.
    assert 0.04 * side < float(moved.abs().max()) < 0.065 * side
    assert float((moved[:, 0] * moved[:, -1]).sign().mean()) < 0.5
    assert float((moved[:, 1:] - moved[:, :-1]).abs().max()) < 1, "nothing tears or folds"


def test_without_a_distance_nothing_bends():
    images, masks = blobs()
    maps = augment.affine_maps(6, EVERYTHING, generator())
    bent = augment.move(images, masks, maps, augment.bends(6, 0.0, generator()))
    torch.testing.assert_close(bent.images, augment.move(images, masks, maps).images)


@pytest.mark.parametrize(
    "view",
    [augment.vary_intensity, blur, augment.cut_out, rand_augment],
)
def test_a_view_depends_on_its_generator_alone(view):
    images, _ = blobs()
    assert torch.equal(view(images, generator(3)), view(images, generator(3)))
    assert not torch.equal(view(images, generator(3)), view(images, generator(4)))


@pytest.mark.parametrize(
    "view",
    [augment.vary_intensity, blur, augment.cut_out, rand_augment],
)
def test_a_view_keeps_shape_and_range_and_its_input(view):
    images, _ = blobs()
    before = images.clone()
    for seed in range(5):
        seen = view(images, generator(seed))
        assert seen.shape == images.shape
        assert float(seen.min()) >= -1
        assert float(seen.max()) <= 1
    assert torch.equal(images, before)


def test_intensity_moves_no_pixel():
    images, _ = blobs()
    for seed in range(10):
        seen = augment.vary_intensity(images, generator(seed))
        smooth = torch.nn.functional.avg_pool2d(seen, 9, 1, 4)
        brightest = smooth.flatten(1).argmax(1)
        expected = images.flatten(1).argmax(1)
        assert int((brightest // 64 - expected // 64).abs().max()) <= 6
        assert int((brightest % 64 - expected % 64).abs().max()) <= 6


def test_intensity_without_strength_leaves_images_alone():
    images, _ = blobs()
    seen = augment.vary_intensity(images, generator(), strength=0)
    torch.testing.assert_close(seen, images, atol=1e-3, rtol=0)


def test_half_of_all_images_are_blurred_each_by_its_own_width():
    point = torch.zeros(400, 1, 65, 65)
    point[:, :, 32, 32] = 1
    seen = augment.blur(point, generator(), widest=0.04)
    torch.testing.assert_close(seen.sum((1, 2, 3)), torch.ones(400))
    is_blurred = seen[:, 0, 32, 32] < 0.999
    assert 0.35 < float(is_blurred.float().mean()) < 0.55  # the narrowest ones do not show
    assert torch.equal(seen[~is_blurred].round(), point[~is_blurred])
    distance = (torch.arange(65) - 32.0) ** 2
    spread = (seen[is_blurred].sum((1, 2)) * distance).sum(1).sqrt()
    assert float(spread.max()) == pytest.approx(0.04 * 65, abs=0.1)
    assert float(spread.min()) < 0.5


def test_a_patch_shows_the_film_before_and_says_where():
    images = torch.arange(50.0).view(50, 1, 1, 1).expand(50, 1, 40, 40)
    seen, is_other = augment.patch(images, generator())
    assert torch.equal(seen[~is_other], images[~is_other])
    assert torch.equal(seen[is_other], images.roll(1, 0)[is_other])
    assert 0.02 < float(is_other.float().mean()) < 0.36


def test_cut_out_greys_one_rectangle_of_limited_size():
    images = torch.ones(50, 1, 40, 40)
    seen = augment.cut_out(images, generator(), largest=0.3)
    hidden = seen == 0
    assert bool((hidden | (seen == 1)).all())
    rows, columns = hidden.any(3).squeeze(1).sum(1), hidden.any(2).squeeze(1).sum(1)
    assert int(rows.max()) <= 13
    assert torch.equal(hidden.sum((1, 2, 3)), rows * columns)
    assert int(rows.max()) > 6
