"""One pixel path: the same film gives the same network input, however a vendor stores it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.pixels import decode, display_image, map_on_source, network_image, resize

FILM = draw_phantom(5, 160, 128)
REAL_FILMS = Path(__file__).parents[3] / "shared" / "data" / "dicom"


def film(**changes: object) -> Dataset:
    """The phantom's object with some attributes changed."""
    dataset = phantom_dataset(FILM)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def stored(values_hw: np.ndarray, bits: int, *, signed: bool = False) -> Dataset:
    """An object with these stored values."""
    allocated = 8 if bits <= 8 else 16
    kind = ("i" if signed else "u") + str(allocated // 8)
    return film(
        BitsAllocated=allocated,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(signed),
        WindowCenter=None,
        WindowWidth=None,
        PixelData=values_hw.astype("<" + kind).tobytes(),
    )


def input_of(dataset: Dataset) -> np.ndarray:
    """The network's input, as int to subtract safely."""
    return network_image(decode(dataset), 64).astype(int)


REFERENCE = input_of(film())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_bit_depth_and_sign_do_not_change_the_network_input(bits: int, signed: bool) -> None:
    scaled_hw = FILM.stored_hw.astype(float) / 4095 * (2**bits - 1)
    if signed:
        scaled_hw -= 2 ** (bits - 1)
    found = input_of(stored(np.rint(scaled_hw), bits, signed=signed))
    assert np.abs(found - REFERENCE).max() <= 2


def test_monochrome1_is_the_inverted_film() -> None:
    inverted = film(
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        PixelData=(4095 - FILM.stored_hw).astype("<u2").tobytes(),
    )
    assert np.abs(input_of(inverted) - REFERENCE).max() <= 1


def test_values_at_the_upper_end_of_their_bits_are_shifted_down() -> None:
    left_aligned = film(HighBit=15, PixelData=(FILM.stored_hw << 4).astype("<u2").tobytes())
    assert np.abs(input_of(left_aligned) - REFERENCE).max() <= 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_so_are_those_of_a_compressed_film(syntax: UID) -> None:
    left_aligned = film(
        BitsStored=16, HighBit=15, PixelData=(FILM.stored_hw << 4).astype("<u2").tobytes()
    )
    left_aligned.compress(syntax)
    left_aligned.BitsStored = 12
    assert np.abs(input_of(left_aligned) - REFERENCE).max() <= 1


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_wrong_high_bit_of_a_compressed_film_changes_nothing(syntax: UID) -> None:
    compressed = film()
    compressed.compress(syntax)
    compressed.HighBit = 15
    assert np.abs(input_of(compressed) - REFERENCE).max() <= 1


def test_a_wrong_high_bit_alone_changes_nothing() -> None:
    assert np.abs(input_of(film(HighBit=15)) - REFERENCE).max() <= 1


def test_an_overlay_in_the_unused_bits_is_no_part_of_the_film() -> None:
    with_overlay_hw = FILM.stored_hw | np.uint16(0x8000)
    assert np.abs(input_of(film(PixelData=with_overlay_hw.tobytes())) - REFERENCE).max() <= 1


def test_a_rescale_changes_nothing_but_the_unit() -> None:
    rescaled = film(
        RescaleSlope="0.5", RescaleIntercept="-100", WindowCenter="924", WindowWidth="2048"
    )
    assert np.abs(input_of(rescaled) - REFERENCE).max() <= 1


def test_a_want_of_memory_is_no_fault_of_the_film(monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Dataset, "convert_pixel_data", short_of_memory)
    with pytest.raises(MemoryError):
        decode(film())


@pytest.mark.parametrize("transfer_syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_a_compressed_film_that_breaks_off_or_lies_about_its_size_is_undecodable(
    transfer_syntax: UID,
) -> None:
    compressed = phantom_dataset(FILM, transfer_syntax=transfer_syntax)
    np.testing.assert_array_equal(input_of(compressed), REFERENCE)
    frame = next(generate_frames(compressed.PixelData, number_of_frames=1))
    truncated = phantom_dataset(FILM, transfer_syntax=transfer_syntax)
    truncated.PixelData = encapsulate([frame[: len(frame) // 3]])
    larger = phantom_dataset(FILM, transfer_syntax=transfer_syntax)
    larger.Rows, larger.Columns = 9000, 9000
    for broken in (truncated, larger):
        with pytest.raises(ImageRejected) as refusal:
            decode(broken)
        assert refusal.value.reason is RejectionReason.UNDECODABLE


def test_a_modality_lut_is_looked_up() -> None:
    inverting = Dataset()
    inverting.LUTDescriptor = [4096, 0, 16]
    inverting.ModalityLUTType = "US"
    inverting.LUTData = (4095 - np.arange(4096)).tolist()
    dataset = film(
        PixelData=(4095 - FILM.stored_hw).astype("<u2").tobytes(),
        ModalityLUTSequence=[inverting],
        WindowCenter=None,
        WindowWidth=None,
    )
    del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType
    assert np.abs(input_of(dataset) - REFERENCE).max() <= 1


def test_a_voi_lut_is_applied() -> None:
    cubing = Dataset()
    cubing.LUTDescriptor = [4096, 0, 16]
    cubing.LUTData = np.rint(65535 * (np.arange(4096) / 4095) ** 3).astype(int).tolist()
    found = input_of(film(VOILUTSequence=[cubing]))
    assert found.mean() < REFERENCE.mean() - 10


def identity_table(entries: int, bits: int, *, first: int = 0, packed: bool = False) -> Dataset:
    """A lookup table that changes nothing but the unit; each entry a byte, or a word."""
    table = Dataset()
    table.LUTDescriptor = [entries, first, bits]
    table["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    values_n = np.rint((2**bits - 1) * np.linspace(0, 1, entries))
    table.LUTData = values_n.astype("u1" if packed else "<u2").tobytes()
    table["LUTData"].VR = "OW"
    return table


@pytest.mark.parametrize(
    ("bits", "packed"), [(8, True), (8, False), (9, False), (12, False), (16, False)]
)
@pytest.mark.parametrize("stored_bits", [8, 12])
def test_a_voi_lut_may_have_entries_of_any_size(stored_bits: int, bits: int, packed: bool) -> None:
    values_hw = FILM.stored_hw >> (12 - stored_bits)
    dataset = stored(values_hw, stored_bits)
    reference = input_of(dataset)
    dataset.VOILUTSequence = [identity_table(2**stored_bits, bits, packed=packed)]
    assert np.abs(input_of(dataset) - reference).max() <= 2
    as_numbers = identity_table(2**stored_bits, bits, packed=packed)
    words = as_numbers.LUTData
    as_numbers.LUTData = np.frombuffer(words, "<u2").tolist()
    as_numbers["LUTData"].VR = "US"
    dataset.VOILUTSequence = [as_numbers]
    assert np.abs(input_of(dataset) - reference).max() <= 2


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(("entries", "first"), [(4096, -2048), (65535, -32768)])
def test_a_modality_lut_of_signed_values_begins_below_zero(
    entries: int, first: int, bits: int
) -> None:
    scale = 1 if entries == 4096 else 16
    values_hw = FILM.stored_hw.astype(int) * scale + first
    dataset = stored(values_hw, 16, signed=True)
    del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType
    reference = input_of(dataset)
    dataset.ModalityLUTSequence = [identity_table(entries, bits, first=first)]
    assert np.abs(input_of(dataset) - reference).max() <= 2
    as_unsigned = identity_table(entries, bits, first=first + 65536)
    dataset.ModalityLUTSequence = [as_unsigned]
    assert np.abs(input_of(dataset) - reference).max() <= 2


def test_a_table_that_is_shorter_than_it_says_is_refused_by_name() -> None:
    table = identity_table(4096, 16)
    table.LUTData = table.LUTData[:100]
    with pytest.raises(ImageRejected, match="VOILUTSequence has fewer entries than it states"):
        decode(film(VOILUTSequence=[table]))


@pytest.mark.parametrize(
    ("keyword", "content"),
    [
        ("VOILUTFunction", b""),
        ("VOILUTFunction", b"LINAER"),
        ("VOILUTFunction", b"LINEAR\\SIGMOID "),
        ("WindowCenter", b"2048,5"),
        ("WindowWidth", b""),
        ("RescaleSlope", b""),
        ("RescaleIntercept", b""),
        ("RescaleSlope", b"0 "),
    ],
)
def test_a_grey_header_that_cannot_be_used_costs_no_film(keyword: str, content: bytes) -> None:
    dataset = film(RescaleType="US")
    tag = Tag(keyword)
    vr = dictionary_VR(tag)
    dataset[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)
    assert np.abs(input_of(dataset) - REFERENCE).max() <= 2


def test_padding_is_dark_and_does_not_move_the_grey_range() -> None:
    padded_hw = FILM.stored_hw.astype(int).clip(1, 4000)
    padded_hw[:, :20] = 4095
    plain_hw = padded_hw.copy()
    plain_hw[:, :20] = 0
    padded = film(PixelPaddingValue=4095, PixelData=padded_hw.astype("<u2").tobytes())
    found = input_of(padded)
    assert found[:, :8].max() == 0
    plain = input_of(film(PixelData=plain_hw.astype("<u2").tobytes()))
    assert np.abs(found[:, 12:] - plain[:, 12:]).max() <= 12


@pytest.mark.parametrize(
    ("centre", "width"), [(1, 1), (0, 0), (60000, 100), ([10, 2048], [2, 4096])]
)
def test_a_window_that_hides_the_film_is_ignored(centre: object, width: object) -> None:
    assert np.abs(input_of(film(WindowCenter=centre, WindowWidth=width)) - REFERENCE).max() <= 1


def test_the_display_image_keeps_the_size_and_darkest_is_air() -> None:
    shown_hw = display_image(decode(film()))
    assert shown_hw.shape == (160, 128)
    assert shown_hw[2, 2] < 20 < shown_hw[FILM.lungs_hw].mean() < shown_hw[140, 64]


def test_a_map_returns_to_where_it_came_from() -> None:
    mask_hw = FILM.lungs_hw.astype(np.float32)
    there_and_back = map_on_source(resize(mask_hw, 256, 256), 160, 128) >= 0.5
    overlap = (there_and_back & FILM.lungs_hw).sum()
    assert 2 * overlap / (there_and_back.sum() + FILM.lungs_hw.sum()) > 0.99


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, RejectionReason.COLOUR),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, RejectionReason.COLOUR),
        ({"NumberOfFrames": 2}, RejectionReason.MULTI_FRAME),
        ({"Rows": 20000, "Columns": 20000}, RejectionReason.TOO_LARGE),
        ({"Rows": 32}, RejectionReason.TOO_SMALL),
        ({"Rows": None}, RejectionReason.NOT_AN_IMAGE),
        ({"PixelData": b"\0\0"}, RejectionReason.UNDECODABLE),
        ({"BitsAllocated": 13}, RejectionReason.UNDECODABLE),
    ],
)
def test_hostile_headers_get_their_reason(
    changes: dict[str, object], reason: RejectionReason
) -> None:
    with pytest.raises(ImageRejected) as refusal:
        decode(film(**changes))
    assert refusal.value.reason is reason


def test_an_object_without_pixels_is_no_image() -> None:
    dataset = film()
    del dataset.PixelData
    with pytest.raises(ImageRejected) as refusal:
        decode(dataset)
    assert refusal.value.reason is RejectionReason.NOT_AN_IMAGE


def test_a_blank_film_decodes_without_dividing_by_zero() -> None:
    blank = input_of(film(PixelData=np.full((160, 128), 7, "<u2").tobytes()))
    assert len(np.unique(blank)) == 1


@settings(max_examples=60, deadline=None)
@given(
    keyword=st.sampled_from(
        ["Rows", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope"]
    ),
    value=st.one_of(st.integers(0, 2**16 - 1), st.none()),
    kept=st.integers(0, 160 * 128 * 2),
)
def test_a_damaged_header_ends_in_a_film_or_a_reason(
    keyword: str, value: int | None, kept: int
) -> None:
    dataset = film(PixelData=phantom_dataset(FILM).PixelData[:kept])
    setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    try:
        radiograph = decode(dataset)
    except ImageRejected:
        return
    assert 0 <= radiograph.grey_hw.min() <= radiograph.grey_hw.max() <= 1


@pytest.mark.skipif(not REAL_FILMS.is_dir(), reason="the real films are not here")
@pytest.mark.parametrize("path", sorted(REAL_FILMS.glob("*.dcm")), ids=lambda path: path.stem)
def test_real_films_decode_with_air_dark(path: Path) -> None:
    small = network_image(decode(dcmread(path)), 64)
    assert small.std() > 20
    if path.stem.startswith("chest"):
        assert small[20:40, 30:34].mean() > small[20:40, 14:22].mean()
