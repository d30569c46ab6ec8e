"""Whatever a film does to its decoder, the caller lives, hears the reason, and goes on."""

import os
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    JPEG2000Lossless,
)

from dicom_io.decoding import DecodingLimits, DecodingProcess
from dicom_io.errors import (
    DecoderCrashed,
    DecodingError,
    DecodingTimedOut,
    ImageRejected,
    RejectionReason,
    StorageError,
)
from dicom_io.part10 import file_header
from dicom_io.pixels import decode, network_image
from tests.dicom_io.sources import SOURCES, given, radiograph

MISBEHAVING = "tests.dicom_io.misbehaving_decoder"


@pytest.fixture(scope="module")
def decoding() -> Iterator[DecodingProcess]:
    with DecodingProcess() as process:
        yield process


@pytest.fixture
def misbehaving() -> Iterator[DecodingProcess]:
    with DecodingProcess(DecodingLimits(seconds=20), MISBEHAVING) as process:
        yield process


def written(source: Dataset, path: Path) -> Path:
    source.save_as(path, enforce_file_format=True)
    return path


def film_that(does: str, path: Path) -> Path:
    return written(radiograph(given(ImageComments=does)), path)


def deflated_bomb(path: Path, gigabytes: int) -> Path:
    """A deflated object whose dataset is a private element of zeros."""
    header = file_header(
        transfer_syntax_uid=DeflatedExplicitVRLittleEndian,
        sop_class_uid=DigitalXRayImageStorageForPresentation,
        sop_instance_uid="1.2.3",
    )
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = compressor.compress(b"\x09\x00\x10\x00OB\0\0\xfe\xff\xff\xff" + bytes(1 << 20))
    head += compressor.flush(zlib.Z_FULL_FLUSH)
    piece = compressor.compress(bytes(100 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    with path.open("wb") as file:
        file.write(header + head)
        for _ in range(gigabytes * 10):
            file.write(piece)
        file.write(compressor.flush())
    return path


def uniform_film(side: int) -> Dataset:
    """A film of one grey value in JPEG 2000."""
    source = radiograph()
    film_hw = np.full((side, side), 9, np.uint16)
    frame = imagecodecs.jpeg2k_encode(film_hw, codecformat="j2k", level=0)
    source.file_meta.TransferSyntaxUID = JPEG2000Lossless
    source.Rows = source.Columns = side
    source.PixelData = encapsulate([frame])
    source["PixelData"].VR = "OB"
    return source


@pytest.mark.parametrize("name", SOURCES)
def test_a_film_comes_out_as_if_it_had_been_decoded_here(
    name: str, decoding: DecodingProcess, tmp_path: Path
) -> None:
    path = written(SOURCES[name](), tmp_path / "film.dcm")
    expected = decode(dcmread(path))
    found = decoding.decode(decoding.open(path))
    np.testing.assert_array_equal(found.grey_hw, expected.grey_hw)
    np.testing.assert_array_equal(found.valid_hw, expected.valid_hw)
    np.testing.assert_array_equal(
        decoding.network_image(path, 64), network_image(decode(dcmread(path)), 64)
    )


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_opened_says_what_the_file_says_but_for_the_pixels(
    name: str, decoding: DecodingProcess, tmp_path: Path
) -> None:
    path = written(SOURCES[name](), tmp_path / "film.dcm")
    whole, opened = dcmread(path), decoding.open(path)
    assert opened.filename == str(path)
    assert opened.PixelData == b""
    assert opened.file_meta == whole.file_meta
    assert opened.original_encoding == whole.original_encoding
    raw = {tag: whole.get_item(tag).value for tag in whole._dict if tag != 0x7FE00010}
    assert {tag: opened.get_item(tag).value for tag in raw} == raw
    assert len(opened) == len(whole)


def test_elements_beyond_a_mebibyte_stay_in_the_file(
    decoding: DecodingProcess, tmp_path: Path
) -> None:
    source = radiograph(given(ImageComments="kept"))
    source.add_new(0x60003000, "OW", bytes(2 << 20))
    opened = decoding.open(written(source, tmp_path / "film.dcm"))
    assert 0x60003000 not in opened
    assert opened.ImageComments == "kept"


def test_one_child_serves_all_films_as_long_as_they_are_harmless(
    decoding: DecodingProcess, tmp_path: Path
) -> None:
    path = written(radiograph(), tmp_path / "film.dcm")
    decoding.open(path)
    child = decoding.process_number
    with pytest.raises(ImageRejected):
        decoding.decode(decoding.open(written(radiograph(given(NumberOfFrames=9)), path)))
    decoding.open(path)
    assert decoding.process_number == child


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("segfault", r"crashed \(SIGSEGV\)"),
        ("exit", "ended with status 3"),
        ("killed", "the machine may be short of memory"),
        ("lie", "makes no sense"),
        ("babble", "makes no sense"),
    ],
)
def test_a_film_that_ends_its_decoder_costs_one_child_and_the_next_film_is_read(
    does: str, words: str, misbehaving: DecodingProcess, tmp_path: Path
) -> None:
    bad = misbehaving.open(film_that(does, tmp_path / "bad.dcm"))
    child = misbehaving.process_number
    with pytest.raises(DecoderCrashed, match=words):
        misbehaving.decode(bad)
    assert child is not None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    good = misbehaving.open(film_that("nothing", tmp_path / "good.dcm"))
    assert misbehaving.decode(good).rows == good.Rows


@pytest.mark.parametrize("does", ["hang", "spin"])
def test_a_film_that_holds_its_decoder_is_given_up_when_its_time_is_over(
    does: str, tmp_path: Path
) -> None:
    with DecodingProcess(DecodingLimits(seconds=3), MISBEHAVING) as process:
        bad = process.open(film_that(does, tmp_path / "bad.dcm"))
        began = time.monotonic()
        with pytest.raises(DecodingTimedOut, match="more than 3 s"):
            process.decode(bad)
        assert time.monotonic() - began < 8
        good = process.open(film_that("nothing", tmp_path / "good.dcm"))
        assert process.decode(good).rows == good.Rows


def test_an_answer_that_was_not_waited_for_is_never_taken_for_another_films(
    misbehaving: DecodingProcess, tmp_path: Path
) -> None:
    slow = misbehaving.open(film_that("take a second", tmp_path / "slow.dcm"))
    other = misbehaving.open(written(radiograph(rows=200), tmp_path / "other.dcm"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            misbehaving.decode(slow)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert misbehaving.decode(other).rows == 200


def test_what_earlier_films_left_behind_refuses_no_later_film(tmp_path: Path) -> None:
    limits = DecodingLimits(memory_bytes=1200 << 20)
    with DecodingProcess(limits, MISBEHAVING) as process:
        leaking = process.open(film_that("leak", tmp_path / "leaking.dcm"))
        for _ in range(3):
            assert process.decode(leaking).rows == leaking.Rows


def test_an_unforeseen_error_names_its_kind_and_nothing_of_the_object(
    misbehaving: DecodingProcess, tmp_path: Path
) -> None:
    bad = misbehaving.open(film_that("fail", tmp_path / "bad.dcm"))
    with pytest.raises(DecodingError, match="KeyError") as problem:
        misbehaving.decode(bad)
    assert "Doe" not in str(problem.value)


def test_a_decoder_that_cannot_start_says_how_to_see_why(tmp_path: Path) -> None:
    process = DecodingProcess(child_module="dicom_io.no_such_module")
    with pytest.raises(DecodingError, match=r"does not start.*python -m dicom_io\.no_such_module"):
        process.open(tmp_path / "film.dcm")


def test_a_file_that_is_gone_is_no_fault_of_the_film(
    decoding: DecodingProcess, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=r"gone\.dcm cannot be read: No such file"):
        decoding.open(tmp_path / "gone.dcm")


def test_a_file_that_is_no_dicom_is_refused(decoding: DecodingProcess, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear radiologist")
    with pytest.raises(ImageRejected) as refusal:
        decoding.open(path)
    assert refusal.value.reason is RejectionReason.UNREADABLE


def test_a_film_that_inflates_beyond_all_bounds_is_refused_at_once(
    decoding: DecodingProcess, tmp_path: Path
) -> None:
    """50 GB of zeros in 50 MB, as a private element of a deflated object."""
    path = deflated_bomb(tmp_path / "bomb.dcm", gigabytes=50)
    assert path.stat().st_size < 60e6
    began = time.monotonic()
    with pytest.raises(ImageRejected, match="inflates to more than 512 MiB") as refusal:
        decoding.open(path)
    assert refusal.value.reason is RejectionReason.TOO_MUCH_MEMORY
    assert time.monotonic() - began < 20


def test_a_film_that_takes_more_memory_than_is_allowed_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    """Five thousand rows and columns of one grey in a few KB of JPEG 2000."""
    path = written(uniform_film(5_000), tmp_path / "bomb.dcm")
    assert path.stat().st_size < 20_000
    with DecodingProcess(DecodingLimits(memory_bytes=470 << 20)) as process:
        opened = process.open(path)
        with pytest.raises(ImageRejected, match="more than 470 MiB") as refusal:
            process.decode(opened)
        assert refusal.value.reason is RejectionReason.TOO_MUCH_MEMORY
        good = process.open(written(radiograph(), tmp_path / "good.dcm"))
        assert process.decode(good).rows == good.Rows


@pytest.mark.parametrize(
    ("side", "encoded_side", "frames", "reason"),
    [
        (65_535, 65_535, 6, RejectionReason.TOO_LARGE),
        (9_000, 9_000, 310, RejectionReason.MULTI_FRAME),
        (64, 160_000, 1, RejectionReason.UNDECODABLE),  # as the codestream alone says
    ],
)
def test_a_hundred_kilobytes_that_claim_fifty_gigabytes_are_refused_without_being_decoded(
    side: int, encoded_side: int, frames: int, reason: RejectionReason, tmp_path: Path
) -> None:
    assert frames * encoded_side**2 * 2 > 50e9
    bomb = uniform_film(64)
    codestream = bytearray(get_frame(bomb.PixelData, 0, number_of_frames=1))
    size_marker = codestream.index(b"\xff\x4f\xff\x51")
    for field in (8, 12, 24, 28):  # width and height, of the image and of its only tile
        at = size_marker + field
        codestream[at : at + 4] = encoded_side.to_bytes(4, "big")
    bomb.Rows = bomb.Columns = side
    bomb.NumberOfFrames = frames
    bomb.PixelData = encapsulate([bytes(codestream)] * frames)
    path = written(bomb, tmp_path / "bomb.dcm")
    assert path.stat().st_size < 100_000
    with DecodingProcess() as process:
        opened = process.open(path)
        child = process.process_number
        with pytest.raises(ImageRejected) as refusal:
            process.decode(opened)
        assert refusal.value.reason is reason
        assert process.process_number == child, "nothing crashed"
        fields = Path(f"/proc/{child}/status").read_text().split()
        assert int(fields[fields.index("VmHWM:") + 1]) < 1 << 20  # KiB


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    path = written(radiograph(), tmp_path / "film.dcm")
    heard, told = os.pipe()
    parent = os.fork()
    if not parent:
        process = DecodingProcess()
        process.open(path)
        os.write(told, str(process.process_number).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    child = int(os.read(heard, 20))
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{child}/exe").exists()
    os.close(heard)
    os.close(told)


def test_the_child_sees_no_secret_of_the_environment_and_may_write_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MULTIMIX_BROKER_URL", "redis://:hunter2@localhost")
    with DecodingProcess(DecodingLimits(memory_bytes=2 << 30)) as process:
        process.open(written(radiograph(), tmp_path / "film.dcm"))
        proc = Path(f"/proc/{process.process_number}")
        assert b"hunter2" not in (proc / "environ").read_bytes()
        limits = (proc / "limits").read_text()
        assert (proc / "oom_score_adj").read_text() == "1000\n"
    soft = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert soft["Max core file size"] == soft["Max file size"] == "0"
    assert soft["Max address space"] == str(2 << 30)
    assert soft["Max cpu time"].isdigit()
