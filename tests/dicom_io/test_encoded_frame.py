"""A compressed film that broke off, or claims another size, is refused before it is decoded."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_io.encoded_frame import jpeg_2000_header, jpeg_header, require_whole_frame
from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.pixels import decode

ROWS, COLUMNS = 160, 128
PHANTOM = draw_phantom(5, ROWS, COLUMNS)
REAL_FILMS = Path(__file__).parents[3] / "shared" / "data" / "dicom"


def as_encoded(transfer_syntax: UID) -> bytes:
    """The phantom's frame as senders encode it."""
    film_hw = PHANTOM.stored_hw
    encoders = {
        JPEGBaseline8Bit: lambda: imagecodecs.jpeg8_encode((film_hw >> 4).astype(np.uint8), 95),
        JPEGExtended12Bit: lambda: imagecodecs.jpeg8_encode(film_hw, 95, bitspersample=12),
        JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(
            film_hw, lossless=True, predictor=1, bitspersample=12
        ),
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(film_hw),
        JPEGLSNearLossless: lambda: imagecodecs.jpegls_encode(film_hw, level=2),
        JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(film_hw, codecformat="j2k", level=0),
        HTJ2KLossless: lambda: imagecodecs.htj2k_encode(film_hw),
    }
    return bytes(encoders[transfer_syntax]())


def film(transfer_syntax: UID, frame: bytes) -> Dataset:
    """An object with this frame."""
    bits_stored = 8 if transfer_syntax == JPEGBaseline8Bit else 12
    dataset = phantom_dataset(PHANTOM, bits_stored=bits_stored)
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return dataset


JPEG_FAMILY = [
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
]
START_OF_FRAME = (0xC0, 0xC1, 0xC3, 0xF7)
COMPRESSED = [*JPEG_FAMILY, JPEG2000Lossless, HTJ2KLossless]


@pytest.mark.parametrize("transfer_syntax", COMPRESSED, ids=lambda uid: uid.name)
def test_a_whole_frame_is_let_through_and_decodes(transfer_syntax: UID) -> None:
    dataset = film(transfer_syntax, as_encoded(transfer_syntax))
    require_whole_frame(dataset)
    radiograph = decode(dataset)
    assert (radiograph.rows, radiograph.columns) == (ROWS, COLUMNS)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("transfer_syntax", COMPRESSED, ids=lambda uid: uid.name)
def test_a_frame_that_breaks_off_is_refused(transfer_syntax: UID, share: float) -> None:
    frame = as_encoded(transfer_syntax)
    with pytest.raises(ImageRejected) as refusal:
        decode(film(transfer_syntax, frame[: int(len(frame) * share)]))
    assert refusal.value.reason is RejectionReason.UNDECODABLE


@pytest.mark.parametrize("transfer_syntax", COMPRESSED, ids=lambda uid: uid.name)
def test_a_frame_of_another_size_is_refused_before_decoding(transfer_syntax: UID) -> None:
    dataset = film(transfer_syntax, as_encoded(transfer_syntax))
    dataset.Rows = 2 * ROWS
    with pytest.raises(ImageRejected, match="encoded size differs"):
        require_whole_frame(dataset)


@pytest.mark.parametrize("transfer_syntax", [JPEG2000Lossless, HTJ2KLossless])
@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (40, b"\x40\x00", RejectionReason.COLOUR),  # 16,384 components
        (24, b"\0\0\0\1\0\0\0\1", RejectionReason.UNDECODABLE),  # a tile for each pixel of 10^8
        (24, b"\0\0\0\0\0\0\0\0", RejectionReason.UNDECODABLE),  # tiles of no size
    ],
)
def test_a_codestream_that_would_take_gigabytes_is_refused_before_decoding(
    transfer_syntax: UID, at: int, value: bytes, reason: RejectionReason
) -> None:
    frame = bytearray(as_encoded(transfer_syntax))
    frame[8:16] = (10_000).to_bytes(4, "big") * 2
    frame[at : at + len(value)] = value
    dataset = film(transfer_syntax, bytes(frame))
    dataset.Rows = dataset.Columns = 10_000
    with pytest.raises(ImageRejected) as refusal:
        require_whole_frame(dataset)
    assert refusal.value.reason is reason


@pytest.mark.parametrize("transfer_syntax", JPEG_FAMILY, ids=lambda uid: uid.name)
def test_a_frame_of_several_components_is_refused_before_decoding(transfer_syntax: UID) -> None:
    frame = bytearray(as_encoded(transfer_syntax))
    start = next(
        at for at in range(len(frame)) if frame[at] == 0xFF and frame[at + 1] in START_OF_FRAME
    )
    frame[start + 9] = 200
    with pytest.raises(ImageRejected, match="200 encoded components"):
        require_whole_frame(film(transfer_syntax, bytes(frame)))


@pytest.mark.parametrize("transfer_syntax", JPEG_FAMILY, ids=lambda uid: uid.name)
def test_padding_after_the_end_is_no_damage(transfer_syntax: UID) -> None:
    require_whole_frame(film(transfer_syntax, as_encoded(transfer_syntax) + b"\0\0\0\0"))


def test_a_frame_in_several_fragments_is_put_together() -> None:
    dataset = film(JPEGBaseline8Bit, b"\0\0")
    dataset.PixelData = encapsulate([as_encoded(JPEGBaseline8Bit)], fragments_per_frame=3)
    require_whole_frame(dataset)


def test_other_compressions_are_left_to_their_decoder() -> None:
    dataset = phantom_dataset(PHANTOM, transfer_syntax=RLELossless)
    require_whole_frame(dataset)
    np.testing.assert_array_equal(dataset.pixel_array, PHANTOM.stored_hw)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00", b"\xff" * 50])
def test_sizes_are_not_guessed(content: bytes) -> None:
    assert jpeg_header(content) is None
    assert jpeg_2000_header(content) is None


@pytest.mark.skipif(not REAL_FILMS.is_dir(), reason="the real films are not here")
@pytest.mark.parametrize("path", sorted(REAL_FILMS.glob("*.dcm")), ids=lambda path: path.stem)
def test_real_films_are_whole(path: Path) -> None:
    dataset = dcmread(path)
    require_whole_frame(dataset)
    if dataset.file_meta.TransferSyntaxUID in JPEG_FAMILY:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        header = jpeg_header(frame)
        assert header is not None
        assert (header.rows, header.columns) == (dataset.Rows, dataset.Columns)
