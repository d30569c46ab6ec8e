"""The decoder for JPEG that is used here: libjpeg-turbo, in the build that imagecodecs brings.

It reads what radiographs are sent in (process 1, 2, 4 and the lossless 14), 12-bit films included,
on which the decoders that pydicom knows fail, and it withstands damaged streams. GDCM does not: of
two hundred damaged films one ends the process. It is taken off wherever pydicom would use it. The
module has the shape that ``pydicom.pixels`` asks of a decoder plugin.
"""

import threading
from typing import Final

import imagecodecs
import numpy as np
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_io.encoded_frame import jpeg_header

_JPEG: Final = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_LABEL: Final = "imagecodecs"
# What stays where it is there; a second decoder would only be shown what the first has refused.
_KEPT: Final = {
    JPEGBaseline8Bit: (_LABEL, "pillow"),  # Pillow, which is libjpeg-turbo too, for colour
    JPEGExtended12Bit: (_LABEL,),
    JPEGLossless: (_LABEL,),
    JPEGLosslessSV1: (_LABEL,),
    JPEGLSLossless: ("pyjpegls",),
    JPEGLSNearLossless: ("pyjpegls",),
    JPEG2000Lossless: ("pylibjpeg",),
    JPEG2000: ("pylibjpeg",),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    RLELossless: ("pylibjpeg", "pydicom"),
}
DECODER_DEPENDENCIES: Final = dict.fromkeys(_JPEG, ("imagecodecs>=2026.1",))
_INSTALLING: Final = threading.Lock()


def is_available(uid: str) -> bool:
    """Whether this decoder can serve the transfer syntax; asked by pydicom."""
    return uid in _JPEG and bool(imagecodecs.JPEG8.available)


def install_decoders() -> None:
    """Let pydicom use the decoders that are trusted here; twice is the same as once.

    Of several decoders pydicom would try one after the other until one answers.
    """
    with _INSTALLING:
        for transfer_syntax, kept in _KEPT.items():
            decoder = get_decoder(transfer_syntax)
            if is_available(transfer_syntax) and _LABEL not in decoder.available_plugins:
                decoder.add_plugin(_LABEL, (__name__, "decode_frame"))
            for label in set(decoder.available_plugins).difference(kept):
                decoder.remove_plugin(label)


def decode_frame(encoded: bytes, runner: DecodeRunner) -> bytes:
    """Decode one grey-scale frame; called by pydicom.

    Args:
        encoded: the JPEG stream of one frame.
        runner: what the dataset says of its pixels.

    Returns:
        The samples in little endian order, one per ``Bits Allocated`` bits (PS3.5 8.1.1).

    Raises:
        ValueError: the frame has more than one sample per pixel, or the stream's size or depth is
            not that of the dataset.
    """
    if runner.samples_per_pixel != 1:
        raise ValueError("only grey-scale JPEG frames are decoded")
    header = jpeg_header(encoded)
    if header is None or header.precision > runner.bits_allocated:
        raise ValueError("the frame does not fit the bits that are allocated")
    if runner.bits_allocated not in (8, 16):
        raise ValueError(f"{runner.bits_allocated} bits allocated cannot hold a JPEG sample")
    # The codec would believe the stream's own size; the room that it may fill is ours to give.
    depth = np.uint8 if header.precision <= 8 else np.uint16
    room_hw = np.empty((runner.rows, runner.columns), dtype=depth)
    frame_hw = imagecodecs.jpeg8_decode(encoded, out=room_hw)
    return np.asarray(frame_hw, dtype=f"<u{runner.bits_allocated // 8}").tobytes()
