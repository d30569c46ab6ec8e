import numpy as np
import pytest
from pydicom import Dataset

from dicom_io.spacing import (
    SpacingPlane,
    display_aspect,
    lung_area_cm2,
    lung_area_percent,
    pixel_spacing,
)


def dataset(**attributes):
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


@pytest.fixture
def quarter():
    mask_hw = np.zeros((40, 20), dtype=bool)
    mask_hw[:20, :10] = True
    return mask_hw


def test_area_uses_both_directions_of_the_spacing(quarter):
    assert lung_area_cm2(quarter, dataset(PixelSpacing=[0.5, 2.0])) == pytest.approx(2.0)


def test_area_is_not_given_without_pixel_spacing(quarter):
    assert lung_area_cm2(quarter, dataset(ImagerPixelSpacing=[0.5, 0.5])) is None
    assert lung_area_cm2(quarter, Dataset()) is None


def test_share_of_the_film(quarter):
    assert lung_area_percent(quarter) == 25.0


@pytest.mark.parametrize(
    ("attributes", "plane"),
    [
        ({}, SpacingPlane.UNKNOWN),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, SpacingPlane.DETECTOR),
        ({"ImagerPixelSpacing": [0.21, 0.21]}, SpacingPlane.PATIENT),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"},
            SpacingPlane.PATIENT,
        ),
        ({"PixelSpacingCalibrationType": "GEOMETRY"}, SpacingPlane.PATIENT),
    ],
)
def test_plane_of_the_spacing_follows_the_calibration_that_is_stated(attributes, plane):
    found = pixel_spacing(dataset(PixelSpacing=[0.2, 0.2], **attributes))
    assert found is not None
    assert found.plane is plane


@pytest.mark.parametrize("value", [None, "", [0.2], [0, 0], [-0.2, -0.2], [1e6, 1e6], [0.2] * 3])
def test_unusable_spacing_is_no_spacing(value):
    assert pixel_spacing(dataset(PixelSpacing=value)) is None
    assert display_aspect(dataset(PixelSpacing=value)) == 1.0


@pytest.mark.parametrize(
    ("attributes", "aspect"),
    [
        ({"PixelSpacing": [0.4, 0.2]}, 2.0),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"NominalScannedPixelSpacing": [0.3, 0.2]}, 1.5),
        ({"PixelAspectRatio": [4, 3]}, 4 / 3),
        ({"PixelSpacing": [0.2, 0.2], "PixelAspectRatio": [4, 3]}, 1.0),
        ({"PixelAspectRatio": [100, 1]}, 1.0),
        ({}, 1.0),
    ],
)
def test_display_aspect_is_height_over_width(attributes, aspect):
    assert display_aspect(dataset(**attributes)) == pytest.approx(aspect)
