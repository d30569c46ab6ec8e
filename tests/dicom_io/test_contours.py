import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw

from dicom_io.contours import outlines
from tests.dicom_io.sources import lungs_at

ENLARGED = 8


def filled(polygons, rows, columns):
    """What the polygons enclose, drawn large and judged at pixel centres."""
    picture = Image.new("1", (columns * ENLARGED, rows * ENLARGED))
    for polygon in polygons:
        inside = Image.new("1", picture.size)
        points = [tuple(point) for point in np.asarray(polygon) * ENLARGED]
        ImageDraw.Draw(inside).polygon(points, fill=1)
        picture = Image.fromarray(np.asarray(picture) ^ np.asarray(inside))
    return np.asarray(picture)[ENLARGED // 2 :: ENLARGED, ENLARGED // 2 :: ENLARGED]


def test_the_outline_of_one_pixel_goes_around_its_centre():
    mask_hw = np.zeros((4, 6), dtype=bool)
    mask_hw[1, 4] = True
    [outline] = outlines(mask_hw, 0.0)
    assert np.array_equal(outline[0], outline[-1])
    assert {tuple(point) for point in outline} == {(4.5, 1.0), (5.0, 1.5), (4.5, 2.0), (4.0, 1.5)}


@given(arrays.arrays(bool, (9, 11)))
def test_without_tolerance_outlines_enclose_every_pixel_of_the_mask_and_no_other(mask_hw):
    assert np.array_equal(filled(outlines(mask_hw, 0.0), 9, 11), mask_hw)


@pytest.mark.parametrize("tolerance", [0.5, 2.0])
def test_simplified_outlines_keep_the_lung(tolerance):
    lung_hw, _ = lungs_at(400, 330)
    exact, [simple] = outlines(lung_hw, 0.0)[0], outlines(lung_hw, tolerance)
    assert len(simple) < len(exact) / 2
    drawn_hw = filled([simple], 400, 330)
    dice = 2 * (drawn_hw & lung_hw).sum() / (drawn_hw.sum() + lung_hw.sum())
    assert dice > 0.99


def test_a_lung_that_reaches_the_edge_is_closed_along_the_edge():
    mask_hw = np.ones((5, 7), dtype=bool)
    [outline] = outlines(mask_hw, 0.0)
    assert outline.min() == 0.0
    assert (outline.max(axis=0) == [7.0, 5.0]).all()


def test_the_longest_outline_comes_first():
    mask_hw = np.zeros((40, 40), dtype=bool)
    mask_hw[2:4, 2:4] = True
    mask_hw[10:35, 10:35] = True
    longest, shortest = outlines(mask_hw, 0.5)
    assert np.ptp(longest) > np.ptp(shortest)


@given(st.floats(0, 50))
def test_an_empty_mask_has_no_outline(tolerance):
    assert outlines(np.zeros((5, 5), dtype=bool), tolerance) == []
