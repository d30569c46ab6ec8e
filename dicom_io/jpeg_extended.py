"""A decoder for JPEG Extended (process 2 and 4) that reads 12-bit films.

pylibjpeg, GDCM and Pillow, the decoders that pydicom knows for this transfer syntax, all fail on
12-bit samples. libjpeg-turbo, in the build that imagecodecs brings, reads them. The module has the
shape that ``pydicom.pixels`` asks of a decoder plugin.
"""

import threading
from typing import Final

import imagecodecs
import numpy as np
from pydicom.pixels.decoders.base import DecodeRunner, JPEGExtended12BitDecoder
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES: Final = {JPEGExtended12Bit: ("imagecodecs>=2026.1",)}
_LABEL: Final = "imagecodecs"
_INSTALLING: Final = threading.Lock()


def is_available(uid: str) -> bool:
    """Whether this decoder can serve the transfer syntax; asked by pydicom."""
    return uid == JPEGExtended12Bit and bool(imagecodecs.JPEG8.available)


def install_decoder() -> None:
    """Make this the decoder that pydicom uses for JPEG Extended; twice is the same as once.

    The other decoders are taken off: on a 12-bit film they fail or, worse, might answer.
    """
    decoder = JPEGExtended12BitDecoder
    with _INSTALLING:
        if not is_available(JPEGExtended12Bit) or _LABEL in decoder.available_plugins:
            return
        decoder.add_plugin(_LABEL, (__name__, "decode_frame"))
        for label in decoder.available_plugins:
            if label != _LABEL:
                decoder.remove_plugin(label)


def decode_frame(encoded: bytes, runner: DecodeRunner) -> bytes:
    """Decode one grey-scale frame; called by pydicom.

    Args:
        encoded: the JPEG stream of one frame.
        runner: what the dataset says of its pixels.

    Returns:
        The samples in little endian order, one per ``Bits Allocated`` bits (PS3.5 8.1.1).

    Raises:
        NotImplementedError: the frame has more than one sample per pixel.
        ValueError: the stream's size or depth is not that of the dataset.
    """
    if runner.samples_per_pixel != 1:
        raise NotImplementedError("only grey-scale JPEG Extended frames are decoded")
    if runner.bits_allocated not in (8, 16):
        raise ValueError(f"{runner.bits_allocated} bits allocated cannot hold a JPEG sample")
    # The codec would believe the stream's own size; the room that it may fill is ours to give.
    depth = np.uint8 if runner.bits_stored <= 8 else np.uint16
    room_hw = np.empty((runner.rows, runner.columns), dtype=depth)
    frame_hw = imagecodecs.jpeg8_decode(encoded, out=room_hw)
    return np.asarray(frame_hw, dtype=f"<u{runner.bits_allocated // 8}").tobytes()
