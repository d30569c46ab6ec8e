"""What the listener accepts: the chest storage classes, and the transfer syntaxes we can decode.

A transfer syntax is offered only if a small film in it was decoded here, in this process, and came
out as it went in. What is not offered, the sender converts; what were offered and then could not be
decoded would be lost.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
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
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dicom_io.jpeg_decoder import install_decoders

SINGLE_IMAGE_STORAGE_CLASSES: Final = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

# A chest film may hide in a one-frame "multi-frame" Secondary Capture, and what has more frames or
# colour is better kept and answered with a reason than refused where nobody looks.
CHEST_STORAGE_CLASSES: Final = (
    *SINGLE_IMAGE_STORAGE_CLASSES,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

Film = NDArray[np.uint8] | NDArray[np.uint16]

_SIDE: Final = 32


@dataclass(frozen=True)
class Probe:
    """How to make a film in one transfer syntax, and how exactly it must come back.

    Attributes:
        encode: the encoded frame of a film; None where the pixels are stored as they are.
        depths: bits per sample that senders use with this transfer syntax.
        tolerance: largest error of a decoded sample, as a share of the grey range; 0 is lossless.
    """

    encode: Callable[[Film, int], bytes] | None
    depths: tuple[int, ...]
    tolerance: float = 0.0


def _rle(film_hw: Film, bits: int) -> bytes:
    return RLELosslessEncoder.encode(
        film_hw.tobytes(),
        rows=_SIDE,
        columns=_SIDE,
        samples_per_pixel=1,
        bits_allocated=film_hw.itemsize * 8,
        bits_stored=bits,
        pixel_representation=0,
        number_of_frames=1,
        photometric_interpretation="MONOCHROME2",
        encoding_plugin="pydicom",
    )


def _jpeg(film_hw: Film, bits: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(film_hw, level=95, bitspersample=bits))


def _jpeg_lossless(predictor: int) -> Callable[[Film, int], bytes]:
    def encode(film_hw: Film, bits: int) -> bytes:
        return bytes(
            imagecodecs.jpeg8_encode(
                film_hw, lossless=True, predictor=predictor, bitspersample=bits
            )
        )

    return encode


def _jpeg_ls(largest_error: int) -> Callable[[Film, int], bytes]:
    def encode(film_hw: Film, bits: int) -> bytes:
        return bytes(imagecodecs.jpegls_encode(film_hw, level=largest_error))

    return encode


def _jpeg_2000(reversible: bool) -> Callable[[Film, int], bytes]:
    def encode(film_hw: Film, bits: int) -> bytes:
        return bytes(
            imagecodecs.jpeg2k_encode(
                film_hw,
                level=0 if reversible else 60,
                codecformat="J2K",
                reversible=reversible,
                bitspersample=bits,
            )
        )

    return encode


def _htj2k(reversible: bool) -> Callable[[Film, int], bytes]:
    def encode(film_hw: Film, bits: int) -> bytes:
        return bytes(imagecodecs.htj2k_encode(film_hw, reversible=reversible, tlm=reversible))

    return encode


_PROBES: Final[dict[UID, Probe]] = {
    ExplicitVRLittleEndian: Probe(None, (8, 12, 16)),
    ImplicitVRLittleEndian: Probe(None, (8, 12, 16)),
    DeflatedExplicitVRLittleEndian: Probe(None, (8, 12, 16)),
    ExplicitVRBigEndian: Probe(None, (8, 12, 16)),
    RLELossless: Probe(_rle, (8, 12, 16)),
    JPEGLosslessSV1: Probe(_jpeg_lossless(predictor=1), (8, 12, 16)),
    JPEGLossless: Probe(_jpeg_lossless(predictor=6), (8, 12, 16)),
    JPEGLSLossless: Probe(_jpeg_ls(largest_error=0), (8, 12, 16)),
    JPEGLSNearLossless: Probe(_jpeg_ls(largest_error=2), (8, 12, 16), tolerance=0.02),
    JPEG2000Lossless: Probe(_jpeg_2000(reversible=True), (8, 12, 16)),
    JPEG2000: Probe(_jpeg_2000(reversible=False), (8, 12, 16), tolerance=0.05),
    HTJ2KLossless: Probe(_htj2k(reversible=True), (8, 12, 16)),
    HTJ2KLosslessRPCL: Probe(_htj2k(reversible=True), (8, 12, 16)),
    HTJ2K: Probe(_htj2k(reversible=False), (8, 12, 16), tolerance=0.05),
    JPEGBaseline8Bit: Probe(_jpeg, (8,), tolerance=0.05),
    JPEGExtended12Bit: Probe(_jpeg, (8, 12), tolerance=0.05),
}


@cache
def decodable_transfer_syntaxes() -> tuple[UID, ...]:
    """The transfer syntaxes in which a film was decoded in this process, in order of preference.

    Returns:
        A subset of the transfer syntaxes of PS3.5 Annex A; uncompressed ones come first.
    """
    install_decoders()
    return tuple(syntax for syntax, probe in _PROBES.items() if is_decoded(syntax, probe))


def is_decoded(transfer_syntax: UID, probe: Probe) -> bool:
    """Whether the films of a probe, encoded, written and read again, are what they were.

    Args:
        transfer_syntax: the transfer syntax to prove.
        probe: how to make the films.

    Returns:
        True if every one was decoded within the probe's tolerance.
    """
    return all(_comes_back(transfer_syntax, bits, probe) for bits in probe.depths)


def sample_film(bits: int) -> Film:
    """A film that uses the whole grey range smoothly, as radiographs do.

    Args:
        bits: bits per sample, 8 to 16.

    Returns:
        uint8 for 8 bits, else uint16; (32, 32).
    """
    y_hw, x_hw = np.mgrid[0:_SIDE, 0:_SIDE]
    grey_hw: NDArray[np.int64] = (x_hw + y_hw) * ((1 << bits) - 1) // (2 * (_SIDE - 1))
    return grey_hw.astype(np.uint8) if bits <= 8 else grey_hw.astype(np.uint16)


def sample_object(transfer_syntax: UID, bits: int, probe: Probe | None = None) -> Dataset:
    """A small Computed Radiography object in a transfer syntax, with ``sample_film`` as its image.

    Args:
        transfer_syntax: one that can be probed.
        bits: bits per sample, 8 to 16.
        probe: how to encode the film; by default the way in which the transfer syntax is probed.

    Returns:
        The object with its file meta information, ready to be written.

    Raises:
        KeyError: the transfer syntax is not one that radiographs are sent in.
    """
    film_hw = sample_film(bits)
    sample = Dataset()
    sample.file_meta = FileMetaDataset()
    sample.file_meta.TransferSyntaxUID = transfer_syntax
    sample.SOPClassUID = ComputedRadiographyImageStorage
    sample.SOPInstanceUID = UID("2.25.1")
    sample.Rows = sample.Columns = _SIDE
    sample.SamplesPerPixel = 1
    sample.PhotometricInterpretation = "MONOCHROME2"
    sample.BitsAllocated = film_hw.itemsize * 8
    sample.BitsStored = bits
    sample.HighBit = bits - 1
    sample.PixelRepresentation = 0
    encode = (probe or _PROBES[transfer_syntax]).encode
    if encode is not None:
        sample.PixelData = encapsulate([encode(film_hw, bits)])
    elif transfer_syntax.is_little_endian:
        sample.PixelData = film_hw.astype(film_hw.dtype.newbyteorder("<")).tobytes()
    else:
        sample.PixelData = film_hw.astype(film_hw.dtype.newbyteorder(">")).tobytes()
    sample["PixelData"].VR = "OB" if encode is not None or bits <= 8 else "OW"
    return sample


def _comes_back(transfer_syntax: UID, bits: int, probe: Probe) -> bool:
    film_hw = sample_film(bits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = io.BytesIO()
            sample = sample_object(transfer_syntax, bits, probe)
            dcmwrite(stream, sample, enforce_file_format=True)
            stream.seek(0)
            decoded_hw = dcmread(stream).pixel_array
    except Exception:  # noqa: BLE001 - codecs raise whatever they like; all mean "not decodable"
        return False
    if decoded_hw.shape != film_hw.shape:
        return False
    error = np.abs(decoded_hw.astype(np.int64) - film_hw.astype(np.int64)).max()
    return bool(error <= probe.tolerance * ((1 << bits) - 1))
