"""Films in every transfer syntax, and the ways in which a fuzzer damages them.

Damage knows the structure: attributes get extreme values, marker segments of a codestream are
changed, doubled or dropped, items of the encapsulation lie about their length, frames stand under
another transfer syntax than their own. Everything follows from a seed.
"""

import random
from collections.abc import Callable
from io import BytesIO

import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.tag import Tag
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.dicom_io.sources import radiograph

ROWS, COLUMNS = 72, 80
PLAIN = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def _film(bits: int) -> np.ndarray:
    dataset = radiograph(rows=ROWS, columns=COLUMNS, bits=bits)
    kind = "u1" if bits <= 8 else "<u2"
    return np.frombuffer(dataset.PixelData, kind).reshape(ROWS, COLUMNS)


FILM_8, FILM_12 = _film(8), _film(12)


def _rle() -> bytes:
    return RLELosslessEncoder.encode(
        FILM_12.tobytes(),
        rows=ROWS,
        columns=COLUMNS,
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=12,
        pixel_representation=0,
        number_of_frames=1,
        photometric_interpretation="MONOCHROME2",
        encoding_plugin="pydicom",
    )


def _jpeg_2000(*, reversible: bool) -> bytes:
    level = 0 if reversible else 60
    return imagecodecs.jpeg2k_encode(
        FILM_12, level=level, codecformat="J2K", reversible=reversible, bitspersample=12
    )


def _jpeg_lossless(predictor: int) -> bytes:
    return imagecodecs.jpeg8_encode(FILM_12, lossless=True, predictor=predictor, bitspersample=12)


ENCODED: dict[UID, bytes] = {
    RLELossless: _rle(),
    JPEGBaseline8Bit: imagecodecs.jpeg8_encode(FILM_8, 95),
    JPEGExtended12Bit: imagecodecs.jpeg8_encode(FILM_12, 95, bitspersample=12),
    JPEGLossless: _jpeg_lossless(6),
    JPEGLosslessSV1: _jpeg_lossless(1),
    JPEGLSLossless: imagecodecs.jpegls_encode(FILM_12),
    JPEGLSNearLossless: imagecodecs.jpegls_encode(FILM_12, level=2),
    JPEG2000Lossless: _jpeg_2000(reversible=True),
    JPEG2000: _jpeg_2000(reversible=False),
    HTJ2KLossless: imagecodecs.htj2k_encode(FILM_12, reversible=True),
    HTJ2KLosslessRPCL: imagecodecs.htj2k_encode(FILM_12, reversible=True, tlm=True),
    HTJ2K: imagecodecs.htj2k_encode(FILM_12, reversible=False),
}
TRANSFER_SYNTAXES = (*PLAIN, *ENCODED)

EXTREMES = (
    0, 1, 2, 7, 8, 15, 16, 31, 32, 64, 72, 80, 127, 128, 255, 256, 4095, 32767, 32768, 65535,
)  # fmt: skip
NUMBERS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip
TEXTS = {
    "WindowCenter": "DS",
    "WindowWidth": "DS",
    "RescaleSlope": "DS",
    "RescaleIntercept": "DS",
    "NumberOfFrames": "IS",
    "PixelSpacing": "DS",
}
STRANGE_TEXTS = (
    b"0 ", b"-1", b"1 ", b"1e308 ", b"-1e308", b"1e-308", b"nan ", b"inf ", b"", b"x\0", b"\\\\",
    b"2147483647", b"99999999999999999999", b"1_0 ",
)  # fmt: skip


def film_in(transfer_syntax: UID) -> Dataset:
    """The undamaged film."""
    if transfer_syntax in PLAIN:
        return radiograph(rows=ROWS, columns=COLUMNS, transfer_syntax=transfer_syntax)
    bits = 8 if transfer_syntax == JPEGBaseline8Bit else 12
    dataset = radiograph(rows=ROWS, columns=COLUMNS, bits=bits)
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.PixelData = encapsulate([bytes(ENCODED[transfer_syntax])])
    dataset["PixelData"].VR = "OB"
    return dataset


def damaged_film(seed: int) -> bytes:
    """A file made from a seed, damaged in one to four ways."""
    chance = random.Random(seed)
    transfer_syntax = chance.choice(TRANSFER_SYNTAXES)
    dataset = film_in(transfer_syntax)
    if transfer_syntax in ENCODED and chance.random() < 0.6:
        _damage_frame(dataset, transfer_syntax, chance)
    if chance.random() < 0.4:
        _damage_attributes(dataset, chance)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    content = bytearray(stream.getvalue())
    if chance.random() < 0.4:
        _damage_bytes(content, chance)
    return bytes(content)


def _damage_frame(dataset: Dataset, transfer_syntax: UID, chance: random.Random) -> None:
    own = transfer_syntax if chance.random() < 0.95 else chance.choice(list(ENCODED))
    frame = bytearray(ENCODED[own])
    for _ in range(chance.randint(1, 3)):
        chance.choice(FRAME_DAMAGES)(frame, chance)
    pixel_data = bytearray(encapsulate([bytes(frame)], has_bot=chance.random() < 0.5))
    if chance.random() < 0.1:
        at = 4 * chance.randrange(1, 4)
        pixel_data[at : at + 4] = chance.randbytes(4)
    dataset.PixelData = bytes(pixel_data)
    dataset["PixelData"].VR = "OB"


def _marker_segments(frame: bytearray) -> list[tuple[int, int]]:
    """First and last byte of the marker segments of a JPEG or JPEG 2000 stream's head."""
    segments, at = [], 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        segments.append((at, min(end, len(frame))))
        if frame[at + 1] in (0xDA, 0x93):
            break
        at = end
    return segments


def _change_a_segment(frame: bytearray, chance: random.Random) -> None:
    if segments := _marker_segments(frame):
        first, last = chance.choice(segments)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(first, last)
            frame[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _drop_or_double_a_segment(frame: bytearray, chance: random.Random) -> None:
    if segments := _marker_segments(frame):
        first, last = chance.choice(segments)
        frame[first:last] = frame[first:last] * chance.choice((0, 2, 20))


def _change_coded_data(frame: bytearray, chance: random.Random) -> None:
    segments = _marker_segments(frame)
    start = segments[-1][1] if segments else 0
    for _ in range(chance.randint(1, 16)):
        if start < len(frame):
            frame[chance.randrange(start, len(frame))] = chance.randrange(256)


def _break_off(frame: bytearray, chance: random.Random) -> None:
    del frame[chance.randrange(len(frame) + 1) :]
    if chance.random() < 0.5:
        frame += b"\xff\xd9"


def _stretch(frame: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(frame) + 1)
    frame[at:at] = chance.randbytes(chance.randint(1, 64))


FRAME_DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _change_a_segment,
    _change_a_segment,
    _drop_or_double_a_segment,
    _change_coded_data,
    _change_coded_data,
    _break_off,
    _stretch,
)


def _damage_attributes(dataset: Dataset, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        match chance.randrange(4):
            case 0 | 1:
                order = "little" if dataset.file_meta.TransferSyntaxUID.is_little_endian else "big"
                number = chance.choice(EXTREMES).to_bytes(2, order)
                _put(dataset, chance.choice(NUMBERS), "US", number)
            case 2:
                keyword = chance.choice(list(TEXTS))
                _put(dataset, keyword, TEXTS[keyword], chance.choice(STRANGE_TEXTS))
            case 3:
                dataset.VOILUTSequence = [_strange_table(chance)]


def _put(dataset: Dataset, keyword: str, vr: str, value: bytes) -> None:
    """Put these very bytes, past any library's encoder."""
    tag = Tag(keyword)
    pattern = dataset._dict[0x00100010]
    dataset._dict[tag] = pattern._replace(tag=tag, VR=vr, value=value, length=len(value))


def _strange_table(chance: random.Random) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [chance.choice(EXTREMES) for _ in range(chance.choice((0, 2, 3, 3, 3)))]
    table.LUTData = chance.randbytes(2 * chance.choice((0, 1, 256, 4096)))
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    return table


def _damage_bytes(content: bytearray, chance: random.Random) -> None:
    match chance.randrange(3):
        case 0:
            for _ in range(chance.randint(1, 8)):
                content[chance.randrange(128, len(content))] = chance.randrange(256)
        case 1:
            # Attributes stand before the pixels; damage there reaches more code.
            for _ in range(chance.randint(1, 8)):
                content[chance.randrange(128, min(1500, len(content)))] = chance.randrange(256)
        case 2:
            del content[chance.randrange(len(content)) :]
