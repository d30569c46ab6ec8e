"""From a DICOM radiograph to the network's input, and back to the source's pixel grid.

One path for training, evaluation, batch and worker::

    stored values -> modality LUT -> VOI LUT -> air is dark -> grey in [0, 1] -> square uint8

Change anything that alters ``network_image`` and raise ``PREPROCESSING_VERSION``: it is stored in
every cache and checkpoint, and a mismatch is refused.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_windowing

from dicom_io.encoded_frame import require_whole_frame
from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.grey_parameters import Window, rescale_of, window_of
from dicom_io.jpeg_decoder import install_decoders
from dicom_io.lookup_table import read_lookup_table
from dicom_io.refusal import refusing

PREPROCESSING_VERSION: Final = "1"

LARGEST_IMAGE_PIXELS: Final = 100_000_000
SMALLEST_SIDE_PIXELS: Final = 64
DARKEST_PERCENTILE: Final = 0.5
BRIGHTEST_PERCENTILE: Final = 99.5
# A window that leaves less than this share of the pixels between its ends hides the film rather
# than showing it; vendors ship such defaults (0/0, 1/1, a stale window of another image).
SMALLEST_SHARE_INSIDE_WINDOW: Final = 0.5


@dataclass(frozen=True)
class Radiograph:
    """A decoded radiograph, ready to be shown or to be read by the network.

    Attributes:
        grey_hw: float32 in [0, 1], (rows, columns); 0 is air, whatever the source's photometric
            interpretation.
        valid_hw: bool, (rows, columns); False where the source says that a pixel is padding.
    """

    grey_hw: NDArray[np.float32]
    valid_hw: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """Number of rows of the source."""
        return int(self.grey_hw.shape[0])

    @property
    def columns(self) -> int:
        """Number of columns of the source."""
        return int(self.grey_hw.shape[1])


@refusing(RejectionReason.UNREADABLE)
def require_readable_image(dataset: Dataset) -> None:
    """Refuse, from the header alone, what must not even be decoded.

    Args:
        dataset: a DICOM object; its pixel data is not touched.

    Raises:
        ImageRejected: no pixel data, colour, multi-frame, of absurd size, or a header that cannot
            be read.
    """
    if "PixelData" not in dataset:
        raise ImageRejected(RejectionReason.NOT_AN_IMAGE)
    rows, columns = _positive(dataset, "Rows"), _positive(dataset, "Columns")
    if rows * columns > LARGEST_IMAGE_PIXELS:
        raise ImageRejected(RejectionReason.TOO_LARGE, f"{columns} x {rows} pixels")
    if min(rows, columns) < SMALLEST_SIDE_PIXELS:
        raise ImageRejected(RejectionReason.TOO_SMALL, f"{columns} x {rows} pixels")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or not str(
        dataset.get("PhotometricInterpretation", "")
    ).startswith("MONOCHROME"):
        raise ImageRejected(RejectionReason.COLOUR)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageRejected(RejectionReason.MULTI_FRAME, f"{frames} frames")


def decode(dataset: Dataset) -> Radiograph:
    """Decode a single-frame grey-scale radiograph into grey values as a viewer shows them.

    Modality LUT (PS3.3 C.11.1), then the first VOI LUT or window (C.11.2), then MONOCHROME1 or an
    inverse Presentation LUT Shape turned so that air is dark. A rescale, a window or a function
    that cannot be used (empty, misspelt, no number) counts as absent.

    Args:
        dataset: a DICOM object with pixel data and file meta information.

    Returns:
        The radiograph at full resolution.

    Raises:
        ImageRejected: the object is no single grey image, too large, or cannot be decoded.
        MemoryError: this machine is short of memory; the object may be fine.
    """
    require_readable_image(dataset)
    install_decoders()
    with refusing(RejectionReason.UNDECODABLE):
        require_whole_frame(dataset)
        stored_hw = _stored_values(dataset)
        if stored_hw.shape != (int(dataset.Rows), int(dataset.Columns)):
            detail = "decoded size differs from the header"
            raise ImageRejected(RejectionReason.UNDECODABLE, detail)
        valid_hw = ~_padding(stored_hw, dataset)
        values_hw = _modality_values(stored_hw, dataset)
        values_hw = _apply_sensible_voi(values_hw, valid_hw, dataset)
        inverted = air_is_bright(dataset)
    if not np.isfinite(values_hw).all():
        raise ImageRejected(RejectionReason.UNDECODABLE, "pixel values are not finite")
    if inverted:
        values_hw = -values_hw
    return Radiograph(grey_hw=_to_unit_range(values_hw, valid_hw), valid_hw=valid_hw)


def network_image(radiograph: Radiograph, side: int = 256) -> NDArray[np.uint8]:
    """The network's input: the whole film on a square grid with a vendor-independent grey range.

    The film is stretched to the square (the paper keeps no aspect ratio either), area-averaged,
    and its 0.5th and 99.5th percentile (padding left out) become 0 and 255.

    Args:
        radiograph: a decoded radiograph.
        side: rows and columns of the result, in pixels.

    Returns:
        uint8, (side, side).
    """
    small_hw = resize(radiograph.grey_hw, side, side)
    if radiograph.valid_hw.all():
        inside = small_hw
    else:
        inside = small_hw[resize(radiograph.valid_hw.astype(np.float32), side, side) > 0.5]
        inside = inside if inside.size else small_hw
    low, high = np.percentile(inside, (DARKEST_PERCENTILE, BRIGHTEST_PERCENTILE))
    return _to_grey_levels(small_hw, float(low), float(high))


def display_image(radiograph: Radiograph) -> NDArray[np.uint8]:
    """The film as a reader sees it: full resolution, same grey range as the network's input.

    Returns:
        uint8, (rows, columns); 0 is air.
    """
    sample = radiograph.grey_hw[radiograph.valid_hw]
    sample = sample[:: max(1, sample.size // 250_000)]
    low, high = (
        np.percentile(sample, (DARKEST_PERCENTILE, BRIGHTEST_PERCENTILE)) if sample.size else (0, 1)
    )
    return _to_grey_levels(radiograph.grey_hw, float(low), float(high))


def map_on_source(map_hw: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Stretch a map of the network's grid back onto the source's pixel grid.

    Args:
        map_hw: float32, any square size.
        rows: rows of the source.
        columns: columns of the source.

    Returns:
        float32, (rows, columns), bilinear; the inverse of the stretch in ``network_image``.
    """
    return resize(map_hw, rows, columns)


def resize(image_hw: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Resize with an antialiasing bilinear filter (area-weighted when shrinking).

    Pixel centres stay aligned: a point at relative position (y / rows, x / columns) keeps it.
    """
    picture = Image.fromarray(np.ascontiguousarray(image_hw, dtype=np.float32), mode="F")
    resized = picture.resize((columns, rows), resample=Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def air_is_bright(dataset: Dataset) -> bool:
    """Whether larger values mean less absorption, so that the film must be inverted to be shown.

    MONOCHROME1 (PS3.3 C.7.6.3.1.2) inverts, and so does Presentation LUT Shape INVERSE
    (C.11.6.1.2); in a MONOCHROME1 image INVERSE states the same inversion, not a second one.
    """
    return bool(
        dataset.get("PhotometricInterpretation") == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE"
    )


def _to_grey_levels(grey_hw: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Stretch [low, high] to [0, 255], what lies outside to its ends."""
    scaled_hw = np.clip((grey_hw - low) / max(high - low, 1e-6), 0.0, 1.0)
    return np.asarray(np.rint(scaled_hw * 255.0), dtype=np.uint8)


def _stored_values(dataset: Dataset) -> NDArray[np.integer[Any]]:
    """Decode, minding films whose bits lie at the upper end of their 16 (PS3.5 8.1.1 of old).

    High Bit has to be Bits Stored - 1 today, and pydicom takes it for that. Where the header says
    otherwise the values tell: only truly shifted ones are too large for Bits Stored.
    """
    bits_stored, high_bit = int(dataset.BitsStored), int(dataset.get("HighBit") or 0)
    shift = high_bit + 1 - bits_stored
    if shift <= 0:
        return np.asarray(dataset.pixel_array)
    whole = copy(dataset)
    whole.BitsStored = high_bit + 1
    values_hw = np.asarray(whole.pixel_array)
    sign_bit = int(dataset.PixelRepresentation)
    fits = np.abs(values_hw.astype(np.int64)).max() <= 2 ** (bits_stored - sign_bit)
    return np.asarray(dataset.pixel_array) if fits else values_hw >> shift


def _padding(stored_hw: NDArray[np.integer[Any]], dataset: Dataset) -> NDArray[np.bool_]:
    """Pixels that hold no image (PS3.3 C.7.5.1.1.2), compared in stored values."""
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(stored_hw.shape, dtype=np.bool_)
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((first, last if isinstance(last, int) else first))
    padded_hw = (stored_hw >= low) & (stored_hw <= high)
    # A padding value that covers the film is a mistake of the sender, not a mask.
    return padded_hw if padded_hw.mean() < 0.9 else np.zeros(stored_hw.shape, dtype=np.bool_)


def _modality_values(stored_hw: NDArray[np.integer[Any]], dataset: Dataset) -> NDArray[np.float32]:
    """Apply the modality LUT, or the rescale."""
    if dataset.get("ModalityLUTSequence"):
        return read_lookup_table(dataset, "ModalityLUTSequence", stored_hw).look_up(stored_hw)
    rescale = rescale_of(dataset)
    if rescale is None:
        return stored_hw.astype(np.float32)
    return (stored_hw * np.float64(rescale.slope) + rescale.intercept).astype(np.float32)


def _apply_sensible_voi(
    values_hw: NDArray[np.float32],
    valid_hw: NDArray[np.bool_],
    dataset: Dataset,
) -> NDArray[np.float32]:
    """Apply the first VOI LUT or window, unless the window would hide most of the film."""
    if dataset.get("VOILUTSequence"):
        # A LUT is indexed by integers; without a modality LUT those are the stored values.
        index_hw = np.rint(values_hw).astype(np.int64)
        return read_lookup_table(dataset, "VOILUTSequence", index_hw).look_up(index_hw)
    window = window_of(dataset)
    if window is None:
        return values_hw
    seen = values_hw[valid_hw]
    seen = seen[:: max(1, seen.size // 250_000)]
    inside = np.abs(seen - window.centre) <= window.width / 2
    if inside.size and inside.mean() < SMALLEST_SHARE_INSIDE_WINDOW:
        return values_hw
    return _windowed(values_hw, dataset, window)


def _windowed(
    values_hw: NDArray[np.float32], dataset: Dataset, window: Window
) -> NDArray[np.float32]:
    """Apply a window; pydicom takes it from the header, where it may be spelt in other ways."""
    usable = copy(dataset)
    usable.WindowCenter, usable.WindowWidth = window.centre, window.width
    usable.VOILUTFunction = window.function
    if rescale_of(dataset) is None:
        for keyword in ("RescaleSlope", "RescaleIntercept"):
            usable.pop(keyword, None)
    return np.asarray(apply_windowing(values_hw, usable), dtype=np.float32)


def _to_unit_range(
    values_hw: NDArray[np.float32], valid_hw: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Scale to [0, 1] over the valid pixels; padding becomes 0, as dark as air."""
    seen = values_hw[valid_hw] if not valid_hw.all() else values_hw
    low, high = float(seen.min()), float(seen.max())
    grey_hw = (values_hw - low) / max(high - low, 1e-6)
    grey_hw[~valid_hw] = 0.0
    return np.clip(grey_hw, 0.0, 1.0, out=grey_hw)


def _positive(dataset: Dataset, keyword: str) -> int:
    value = dataset.get(keyword)
    if not isinstance(value, int) or value < 1:
        raise ImageRejected(RejectionReason.NOT_AN_IMAGE, f"{keyword} is missing")
    return value
