"""Thousands of damaged films of every transfer syntax: each is read or refused with a reason.

``FUZZ_FILMS`` sets how many and ``FUZZ_SEED`` which. ``corpus/`` keeps films, one of each way in
which a film was refused or read, and each that once did harm.
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dicom_io.decoding import DecodingLimits, DecodingProcess
from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.pixels import Radiograph, network_image
from tests.fuzz.films import TRANSFER_SYNTAXES, damaged_film, film_in
from tests.fuzz.fuzzed_listener import MOST_GROWTH_MIB

FILMS = int(os.environ.get("FUZZ_FILMS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.dcm"))
LIMITS = DecodingLimits(seconds=20, memory_bytes=1 << 30)


def read_or_refused(decoding: DecodingProcess, path: Path) -> RejectionReason | None:
    """Read a film as the worker does; why it was refused, or None."""
    try:
        film = decoding.decode(decoding.open(path))
    except ImageRejected as refusal:
        return refusal.reason
    require_sound(film)
    return None


def require_sound(film: Radiograph) -> None:
    """What is read keeps its promises, whatever the file was."""
    assert film.grey_hw.shape == film.valid_hw.shape == (film.rows, film.columns)
    assert film.valid_hw.dtype == np.bool_
    assert np.isfinite(film.grey_hw).all()
    image_hw = network_image(film, 32)
    assert (image_hw.dtype, image_hw.shape) == (np.uint8, (32, 32))


@pytest.mark.parametrize("transfer_syntax", TRANSFER_SYNTAXES, ids=lambda uid: uid.name)
def test_every_film_is_read_before_it_is_damaged(transfer_syntax, tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    film_in(transfer_syntax).save_as(path, enforce_file_format=True)
    with DecodingProcess(LIMITS) as decoding:
        assert read_or_refused(decoding, path) is None


@pytest.mark.timeout(900)
def test_damaged_films_are_read_or_refused_and_end_no_process(tmp_path: Path) -> None:
    found: Counter[RejectionReason | None] = Counter()
    path = tmp_path / "film.dcm"
    with DecodingProcess(LIMITS) as decoding:
        for number in range(FILMS):
            path.write_bytes(damaged_film(SEED * 1_000_000 + number))
            found[read_or_refused(decoding, path)] += 1
            if number == FILMS // 10:
                child, resident = decoding.process_number, resident_mib(decoding)
        assert decoding.process_number == child, "no film ended the decoding process"
        assert resident_mib(decoding) - resident < MOST_GROWTH_MIB
    assert found[None] > FILMS // 20, found
    assert found[RejectionReason.UNDECODABLE] > FILMS // 20, found
    assert len(found) >= 5, found


def resident_mib(decoding: DecodingProcess) -> float:
    fields = Path(f"/proc/{decoding.process_number}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) / 1024


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_is_read_or_refused_as_its_names_say(path: Path) -> None:
    with DecodingProcess(LIMITS) as decoding:
        refused = read_or_refused(decoding, path)
    outcome = "read" if refused is None else refused.name.lower().replace("_", "-")
    assert path.stem.split(".")[0] == outcome
