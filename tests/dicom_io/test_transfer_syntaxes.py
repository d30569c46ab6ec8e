import io

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    MPEG2MPML,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLosslessRPCL,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
)

from dicom_io.jpeg_decoder import install_decoders
from dicom_io.transfer_syntaxes import (
    CHEST_STORAGE_CLASSES,
    Probe,
    decodable_transfer_syntaxes,
    is_decoded,
    sample_film,
    sample_object,
)
from tests.programs import output_of

ALL = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
]


def _marker_segments(codestream: bytes, marker: int) -> list[bytes]:
    """The beginnings of the segments behind a JPEG or JPEG 2000 marker."""
    sought = bytes([0xFF, marker])
    return [
        codestream[at + 2 : at + 12]
        for at in range(len(codestream) - 1)
        if codestream[at : at + 2] == sought
    ]


def _codestream(syntax, bits: int) -> bytes:
    return next(generate_frames(sample_object(syntax, bits).PixelData, number_of_frames=1))


@pytest.mark.parametrize("syntax", ALL)
def test_every_transfer_syntax_of_radiographs_is_decoded_here(syntax):
    assert syntax in decodable_transfer_syntaxes()


def test_video_is_not_offered():
    assert MPEG2MPML not in decodable_transfer_syntaxes()


def test_a_transfer_syntax_whose_film_comes_back_wrong_is_not_offered():
    def broken(film_hw, bits):
        return b"\xff\xd8\xff\xd9"

    def inverted(film_hw, bits):
        return bytes(imagecodecs.jpeg8_encode(255 - film_hw, level=95))

    assert not is_decoded(JPEGBaseline8Bit, Probe(broken, (8,), tolerance=0.05))
    assert not is_decoded(JPEGBaseline8Bit, Probe(inverted, (8,), tolerance=0.05))


def test_the_samples_are_what_their_transfer_syntax_promises():
    start_of_frame = {0xC0: "baseline", 0xC1: "extended", 0xC3: "lossless"}
    assert _marker_segments(_codestream(JPEGExtended12Bit, 12), 0xC1)[0][2] == 12
    for syntax, predictor in ((JPEGLosslessSV1, 1), (JPEGLossless, 6)):
        codestream = _codestream(syntax, 16)
        assert [m for m in start_of_frame if _marker_segments(codestream, m)] == [0xC3]
        assert _marker_segments(codestream, 0xDA)[0][5] == predictor
    for syntax in (HTJ2KLosslessRPCL, HTJ2K):
        codestream = _codestream(syntax, 12)
        assert _marker_segments(codestream, 0x50), "a capability marker makes it high throughput"
        progression_order = _marker_segments(codestream, 0x52)[0][3]
        assert progression_order == 2, "RPCL"


def test_chest_classes_hold_what_radiographs_are_sent_as():
    assert ComputedRadiographyImageStorage in CHEST_STORAGE_CLASSES
    assert SecondaryCaptureImageStorage in CHEST_STORAGE_CLASSES
    assert len(set(CHEST_STORAGE_CLASSES)) == len(CHEST_STORAGE_CLASSES)


def _reread(dataset):
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


def test_installing_the_decoder_twice_is_the_same_as_once():
    install_decoders()
    install_decoders()
    film = _reread(sample_object(JPEGExtended12Bit, 12))
    assert np.abs(film.pixel_array.astype(int) - sample_film(12)).max() < 100


def test_a_jpeg_that_claims_another_size_than_the_header_is_not_decoded():
    install_decoders()
    film = sample_object(JPEGExtended12Bit, 12)
    codestream = bytearray(_codestream(JPEGExtended12Bit, 12))
    at = codestream.index(b"\xff\xc1")
    codestream[at + 5 : at + 9] = b"\xff\xff\xff\xff"  # 65535 x 65535 samples
    film.PixelData = encapsulate([bytes(codestream)])
    with pytest.raises(RuntimeError, match="imagecodecs"):
        _ = _reread(film).pixel_array


def test_colour_jpeg_extended_is_not_decoded():
    install_decoders()
    film = sample_object(JPEGExtended12Bit, 8)
    film.SamplesPerPixel, film.PhotometricInterpretation = 3, "RGB"
    film.PlanarConfiguration = 0
    with pytest.raises(RuntimeError, match="grey-scale"):
        _ = _reread(film).pixel_array


@pytest.mark.interop
def test_a_12_bit_jpeg_extended_film_made_by_dcmtk_is_decoded(tmp_path):
    source, compressed = tmp_path / "plain.dcm", tmp_path / "extended.dcm"
    plain = sample_object(ExplicitVRLittleEndian, 12)
    plain.PatientName = plain.PatientID = plain.StudyInstanceUID = plain.SeriesInstanceUID = ""
    plain.StudyInstanceUID, plain.SeriesInstanceUID = "2.25.2", "2.25.3"
    dcmwrite(source, plain, enforce_file_format=True)
    printed = output_of("dcmcjpeg", "+ee", "+q", "98", source, compressed)
    assert compressed.exists(), printed
    install_decoders()
    film = dcmread(compressed)
    assert film.file_meta.TransferSyntaxUID == JPEGExtended12Bit
    assert film.BitsStored == 12
    assert np.abs(film.pixel_array.astype(int) - sample_film(12)).max() < 80
