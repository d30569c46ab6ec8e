import pytest
import torch

from model.rand_augment import RAND_AUGMENT_POOL
from tests.model.films import blobs


@pytest.mark.parametrize("operation", RAND_AUGMENT_POOL, ids=lambda op: op.__name__)
@pytest.mark.parametrize("magnitude", [0.0, 0.5, 1.0])
def test_every_operation_gives_a_finite_image_of_the_same_shape(operation, magnitude):
    image = blobs()[0][0]
    for sign in (1.0, -1.0):
        seen = operation(image, magnitude, sign)
        assert seen.shape == image.shape
        assert bool(torch.isfinite(seen).all())


@pytest.mark.parametrize(
    "name", ["_rotate", "_shear_x", "_shear_y", "_translate_x", "_translate_y", "_solarise"]
)
def test_an_operation_of_no_magnitude_changes_nothing(name):
    (operation,) = [op for op in RAND_AUGMENT_POOL if op.__name__ == name]
    image = blobs()[0][0]
    torch.testing.assert_close(operation(image, 0.0, 1.0), image, atol=1e-4, rtol=0)


def test_a_flat_image_survives_every_operation():
    flat = torch.full((1, 32, 32), -0.3)
    for operation in RAND_AUGMENT_POOL:
        assert bool(torch.isfinite(operation(flat, 0.7, -1.0)).all())


def test_equalising_makes_every_grey_equally_frequent():
    image = (torch.linspace(0, 1, 64 * 64).sqrt() * 2 - 1).view(1, 64, 64)
    (equalise,) = [op for op in RAND_AUGMENT_POOL if op.__name__ == "_equalise"]
    quartiles = torch.quantile(equalise(image, 0, 1).flatten(), torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([-0.5, 0.0, 0.5]), atol=0.05, rtol=0)
