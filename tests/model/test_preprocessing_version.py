"""Weights and caches name the version of the preprocessing; no other may come under its name."""

import numpy as np
import pytest
from pydicom import Dataset

from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.pixels import PREPROCESSING_VERSION, decode, network_image

SIDE = 6
AS_MADE_BY_VERSION_1 = {
    "plain": [
        [70, 0, 17, 94, 120, 129],
        [3, 15, 35, 115, 142, 153],
        [19, 32, 55, 137, 167, 180],
        [34, 50, 76, 159, 192, 207],
        [50, 68, 96, 182, 216, 234],
        [64, 84, 114, 202, 239, 255],
    ],
    "inverted": [
        [185, 255, 238, 161, 135, 126],
        [252, 240, 220, 140, 113, 102],
        [236, 223, 200, 118, 88, 75],
        [221, 205, 179, 96, 63, 48],
        [205, 187, 159, 73, 39, 21],
        [191, 171, 141, 53, 16, 0],
    ],
    "windowed": [
        [52, 0, 27, 156, 198, 214],
        [5, 23, 58, 190, 234, 247],
        [30, 53, 91, 221, 254, 255],
        [56, 82, 122, 233, 255, 255],
        [82, 112, 153, 239, 255, 255],
        [105, 139, 180, 244, 255, 255],
    ],
    "padded": [
        [89, 0, 22, 121, 108, 0],
        [4, 19, 45, 147, 129, 0],
        [24, 42, 71, 175, 153, 0],
        [44, 64, 97, 204, 176, 0],
        [64, 87, 122, 233, 200, 0],
        [82, 107, 146, 255, 221, 0],
    ],
}


def film(kind: str) -> Dataset:
    """96 x 80 pixels of 12 bits that a formula gives: slopes, an edge, a bright corner."""
    dataset = phantom_dataset(draw_phantom(1, 96, 80))
    row, column = np.mgrid[0:96, 0:80]
    stored_hw = 400 + 9 * row + 7 * column + 900 * (column > 40) + (row * column) // 9
    stored_hw[:8, :8] = 4000
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTSequence", "PixelPaddingValue"):
        dataset.pop(keyword, None)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if kind == "inverted":
        dataset.PhotometricInterpretation = "MONOCHROME1"
    elif kind == "windowed":
        dataset.WindowCenter, dataset.WindowWidth = 1400, 1600
    elif kind == "padded":
        stored_hw[:, 64:] = 0
        dataset.PixelPaddingValue = 0
    dataset.PixelData = stored_hw.astype("<u2").tobytes()
    return dataset


@pytest.mark.parametrize("kind", ["plain", "inverted", "windowed", "padded"])
def test_a_changed_network_input_needs_a_new_version(kind: str) -> None:
    assert PREPROCESSING_VERSION == "1", "write down what the new version makes of these films"
    made = network_image(decode(film(kind)), SIDE).astype(int)
    np.testing.assert_allclose(made, AS_MADE_BY_VERSION_1[kind], atol=1)
