"""What a compressed frame says of itself, looked at before a decoder is let loose on it.

Decoders of the JPEG family fill up a frame that broke off with grey and report no error, and all
of them take memory for the size that the frame claims, whatever Rows and Columns say.
"""

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


def require_whole_frame(dataset: Dataset) -> None:
    """Refuse a compressed frame that broke off or is of another size than the header says.

    Args:
        dataset: a single-frame object; nothing is done for one that is not compressed by JPEG,
            JPEG-LS, JPEG 2000 or HTJ2K.

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
        size = jpeg_size(frame)
    elif transfer_syntax in JPEG2000TransferSyntaxes:
        size = jpeg_2000_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
    else:
        return
    if size is not None and size != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageRejected(RejectionReason.UNDECODABLE, "encoded size differs from the header")


def jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns by the frame header of a JPEG or JPEG-LS stream.

    Returns:
        None where no frame header stands before the first scan, or it leaves the rows open.
    """
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _START_OF_FRAME:
            rows = int.from_bytes(frame[position + 5 : position + 7], "big")
            columns = int.from_bytes(frame[position + 7 : position + 9], "big")
            return (rows, columns) if rows else None
        if marker == _START_OF_SCAN:
            return None
        if marker == 0xFF:  # a fill byte before the marker
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


def jpeg_2000_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns by the size marker of a JPEG 2000 codestream, in a JP2 file or bare.

    Returns:
        None where there is no such marker.
    """
    start = frame.find(_CODESTREAM, 0, 4096)
    if start < 0 or len(frame) < start + 24:
        return None
    fields = [int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)]
    right, bottom, left, top = fields
    return bottom - top, right - left
