"""The phantom is a chest whose truth is known, and a DICOM object like any other."""

import numpy as np
import pytest

from dicom_io.eligibility import require_frontal_chest
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.pixels import decode
from tests.programs import require_program


def test_the_same_seed_draws_the_same_film() -> None:
    first, second = draw_phantom(3, 128, 128), draw_phantom(3, 128, 128)
    np.testing.assert_array_equal(first.stored_hw, second.stored_hw)
    assert (draw_phantom(4, 128, 128).stored_hw != first.stored_hw).any()


@pytest.mark.parametrize("seed", range(5))
def test_lungs_are_darker_than_the_body_around_them(seed: int) -> None:
    phantom = draw_phantom(seed, 192, 160, pneumonia=False)
    grey_hw = phantom.stored_hw.astype(float)
    body_hw = np.zeros_like(phantom.lungs_hw)
    body_hw[150:, 40:120] = True
    assert grey_hw[phantom.lungs_hw].mean() < 0.8 * grey_hw[body_hw & ~phantom.lungs_hw].mean()


@pytest.mark.parametrize("seed", range(5))
def test_right_lung_lies_on_the_image_left_and_the_opacity_inside_a_lung(seed: int) -> None:
    phantom = draw_phantom(seed, 192, 192, pneumonia=True)
    columns = np.arange(192)
    centre_of_right = (phantom.right_lung_hw * columns).sum() / phantom.right_lung_hw.sum()
    centre_of_left = (phantom.left_lung_hw * columns).sum() / phantom.left_lung_hw.sum()
    assert centre_of_right < 96 < centre_of_left
    assert not (phantom.right_lung_hw & phantom.left_lung_hw).any()
    assert phantom.label == "pneumonia"
    assert (phantom.opacity_hw & phantom.lungs_hw).sum() > 0.9 * phantom.opacity_hw.sum()


def test_the_object_passes_the_node_s_own_checks_and_decodes() -> None:
    phantom = draw_phantom(1, 128, 96)
    dataset = phantom_dataset(phantom)
    require_frontal_chest(dataset)
    radiograph = decode(dataset)
    assert (radiograph.rows, radiograph.columns) == (128, 96)


@pytest.mark.interop
def test_dciodvfy_finds_no_error_in_the_object(tmp_path) -> None:
    import subprocess

    path = tmp_path / "phantom.dcm"
    phantom_dataset(draw_phantom(1, 128, 96)).save_as(path, enforce_file_format=True)
    judged = subprocess.run(
        [require_program("dciodvfy"), path], capture_output=True, text=True, check=False
    )
    assert "Error" not in judged.stderr + judged.stdout
