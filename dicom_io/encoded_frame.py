"""What a compressed frame says of itself, looked at before a decoder is let loose on it.

Decoders of the JPEG family fill up a frame that broke off with grey and report no error, and all
of them take memory for the size, the components and the tiles that the frame claims, whatever the
attributes of the object say.
"""

from dataclasses import dataclass
from typing import Final

from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from dicom_io.errors import ImageRejected, RejectionReason

# ITU-T T.81 table B.1, and T.87 for JPEG-LS (0xF7). C4, C8 and CC are no frame headers.
_START_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = b"\xff\xd9"
# ITU-T T.800 A.4 and A.5: start of codestream, then the marker of image and tile size.
_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_MOST_TILES: Final = 65_535


@dataclass(frozen=True)
class FrameHeader:
    """What a compressed frame says that it holds.

    Attributes:
        rows: of the frame.
        columns: of the frame.
        components: samples of each pixel.
        precision: bits of each sample of the first component.
    """

    rows: int
    columns: int
    components: int
    precision: int


def require_whole_frame(dataset: Dataset) -> None:
    """Refuse a compressed frame that broke off or is of another size than the object says.

    Args:
        dataset: a single-frame grey object; nothing is done for one that is not compressed by
            JPEG, JPEG-LS, JPEG 2000 or HTJ2K.

    Raises:
        ImageRejected: the frame must not be decoded.
        ValueError: the pixel data is not encapsulated as PS3.5 A.4 says.
    """
    transfer_syntax = dataset.file_meta.TransferSyntaxUID
    if transfer_syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        # Within coded data no 0xFF is followed by a marker, so the last ones found are real.
        if frame.rfind(_END_OF_IMAGE) < frame.rfind(bytes((0xFF, _START_OF_SCAN))):
            raise ImageRejected(RejectionReason.UNDECODABLE, "the compressed film breaks off")
        header = jpeg_header(frame)
    elif transfer_syntax in JPEG2000TransferSyntaxes:
        header = jpeg_2000_header(get_frame(dataset.PixelData, 0, number_of_frames=1))
    else:
        return
    if header is None:
        raise ImageRejected(RejectionReason.UNDECODABLE, "the frame does not say what it holds")
    if (header.rows, header.columns) != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageRejected(RejectionReason.UNDECODABLE, "encoded size differs from the header")
    if header.components != 1:
        raise ImageRejected(RejectionReason.COLOUR, f"{header.components} encoded components")


def jpeg_header(frame: bytes) -> FrameHeader | None:
    """The frame header of a JPEG or JPEG-LS stream (T.81 B.2.2).

    Returns:
        None where no frame header stands before the first scan, or it leaves the rows open.
    """
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _START_OF_FRAME:
            precision = frame[position + 4]
            rows = int.from_bytes(frame[position + 5 : position + 7], "big")
            columns = int.from_bytes(frame[position + 7 : position + 9], "big")
            components = frame[position + 9]
            return FrameHeader(rows, columns, components, precision) if rows else None
        if marker == _START_OF_SCAN:
            return None
        if marker == 0xFF:  # a fill byte before the marker
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def jpeg_2000_header(frame: bytes) -> FrameHeader | None:
    """Image size by a JPEG 2000 codestream, in a JP2 file or bare (T.800 A.5.1).

    Returns:
        None where there is no marker of image and tile size, or it claims more tiles than a
        codestream can number.
    """
    start = frame.find(_CODESTREAM, 0, 4096)
    if start < 0 or len(frame) < start + 43:
        return None
    fields = [int.from_bytes(frame[start + at : start + at + 4], "big") for at in range(8, 40, 4)]
    right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top = fields
    if not tile_width or not tile_height:
        return None
    across = -((tiles_left - right) // tile_width)
    down = -((tiles_top - bottom) // tile_height)
    if across * down > _MOST_TILES:
        return None
    components = int.from_bytes(frame[start + 40 : start + 42], "big")
    precision = (frame[start + 42] & 0x7F) + 1
    return FrameHeader(bottom - top, right - left, components, precision)
