"""The phantom is a chest whose truth is known, and a DICOM object like any other."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.eligibility import require_frontal_chest
from dicom_io.phantom import draw_phantom, main, phantom_dataset
from dicom_io.pixels import decode, network_image
from dicom_io.spacing import pixel_spacing
from tests.programs import output_of

PHANTOM = draw_phantom(1, 128, 96)


def middle_column(mask_hw: np.ndarray) -> float:
    return float((mask_hw * np.arange(mask_hw.shape[1])).sum() / mask_hw.sum())


def test_the_same_seed_draws_the_same_film() -> None:
    first, second = draw_phantom(3, 128, 128), draw_phantom(3, 128, 128)
    np.testing.assert_array_equal(first.stored_hw, second.stored_hw)
    np.testing.assert_array_equal(first.lungs_hw, second.lungs_hw)
    assert (draw_phantom(4, 128, 128).stored_hw != first.stored_hw).any()


@pytest.mark.parametrize("seed", range(5))
def test_lungs_are_darker_than_the_body_around_them(seed: int) -> None:
    phantom = draw_phantom(seed, 192, 160, pneumonia=False)
    belly_hw = np.zeros_like(phantom.lungs_hw)
    belly_hw[165:, 40:120] = True
    grey_hw = phantom.stored_hw.astype(float)
    assert grey_hw[phantom.lungs_hw].mean() < 0.8 * grey_hw[belly_hw & ~phantom.lungs_hw].mean()


@pytest.mark.parametrize("seed", range(5))
def test_the_right_lung_lies_on_the_image_left_apart_from_the_left_lung(seed: int) -> None:
    phantom = draw_phantom(seed, 192, 192)
    assert middle_column(phantom.right_lung_hw) < 96 < middle_column(phantom.left_lung_hw)
    assert not (phantom.right_lung_hw & phantom.left_lung_hw).any()
    assert 0.2 < phantom.lungs_hw.mean() < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_heart_makes_the_left_lung_brighter_in_the_middle(seed: int) -> None:
    phantom = draw_phantom(seed, 192, 192, pneumonia=False)
    lower = np.zeros_like(phantom.lungs_hw)
    lower[110:135] = True
    right = phantom.stored_hw[lower & phantom.right_lung_hw].mean()
    assert phantom.stored_hw[lower & phantom.left_lung_hw].mean() > 1.05 * right


@pytest.mark.parametrize("seed", range(5))
def test_an_opacity_lies_in_a_lung_and_brightens_it(seed: int) -> None:
    with_opacity = draw_phantom(seed, 192, 192, pneumonia=True)
    assert with_opacity.label == "pneumonia"
    assert with_opacity.opacity_hw.sum() > 100
    assert not (with_opacity.opacity_hw & ~with_opacity.lungs_hw).any()
    grey_hw = with_opacity.stored_hw.astype(float)
    clear_hw = with_opacity.lungs_hw & ~with_opacity.opacity_hw
    assert grey_hw[with_opacity.opacity_hw].mean() > 1.1 * grey_hw[clear_hw].mean()


def test_without_opacity_the_label_is_normal() -> None:
    assert draw_phantom(2, 96, 96, pneumonia=False).label == "normal"
    assert {draw_phantom(seed, 64, 64).label for seed in range(12)} == {"normal", "pneumonia"}


@pytest.mark.parametrize("size", [(64, 64), (200, 90), (65, 301)])
def test_any_shape_of_film_can_be_drawn(size: tuple[int, int]) -> None:
    phantom = draw_phantom(0, *size, pneumonia=True)
    for array_hw in (phantom.stored_hw, phantom.lungs_hw, phantom.opacity_hw):
        assert array_hw.shape == size
    assert phantom.stored_hw.max() == 4095


def test_the_object_passes_the_node_s_own_checks_and_decodes() -> None:
    dataset = phantom_dataset(PHANTOM)
    require_frontal_chest(dataset)
    radiograph = decode(dataset)
    assert (radiograph.rows, radiograph.columns) == (128, 96)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits_stored", [8, 10, 12, 16])
def test_every_way_to_store_it_shows_the_same_film(photometric, bits_stored: int) -> None:
    plain = network_image(decode(phantom_dataset(PHANTOM)), 64).astype(int)
    dataset = phantom_dataset(PHANTOM, photometric=photometric, bits_stored=bits_stored)
    assert (dataset.BitsStored, dataset.PhotometricInterpretation) == (bits_stored, photometric)
    assert np.abs(network_image(decode(dataset), 64) - plain).max() <= 2


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda uid: uid.name,
)
def test_it_can_be_written_in_a_transfer_syntax(tmp_path: Path, transfer_syntax: UID) -> None:
    dataset = phantom_dataset(PHANTOM, transfer_syntax=transfer_syntax)
    dataset.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    assert dataset.file_meta.TransferSyntaxUID == transfer_syntax
    np.testing.assert_array_equal(dataset.pixel_array, PHANTOM.stored_hw)


def test_uids_and_patient_are_those_asked_for() -> None:
    dataset = phantom_dataset(
        PHANTOM,
        study_uid="1.2.1",
        series_uid="1.2.2",
        sop_instance_uid="1.2.3",
        patient_id="P7",
        patient_name="Test^Person",
        pixel_spacing_mm=(0.3, 0.25),
    )
    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID) == ("1.2.1", "1.2.2")
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert (dataset.PatientID, dataset.PatientName) == ("P7", "Test^Person")
    spacing = pixel_spacing(dataset)
    assert spacing is not None
    assert (spacing.row_mm, spacing.column_mm) == (0.3, 0.25)


@pytest.mark.interop
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dciodvfy_finds_no_error_in_the_object(tmp_path: Path, photometric) -> None:
    path = tmp_path / "phantom.dcm"
    phantom_dataset(PHANTOM, photometric=photometric).save_as(path, enforce_file_format=True)
    assert "Error" not in output_of("dciodvfy", path)


def test_the_command_line_draws_files_with_both_labels(tmp_path: Path) -> None:
    main(tmp_path / "films", count=2, seed=4)
    names = sorted(path.name for path in (tmp_path / "films").iterdir())
    assert names == ["phantom-4-normal.dcm", "phantom-5-pneumonia.dcm"]
    assert decode(dcmread(tmp_path / "films" / names[1])).rows == 512
