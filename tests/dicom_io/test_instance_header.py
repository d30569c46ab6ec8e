import time
import tracemalloc

import pytest
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_io.instance_header import read_identifiers
from dicom_io.part10 import encode_dataset
from tests.dicom_io.peers import DX


def nested(depth: int) -> bytes:
    """Sequences in sequences of undefined length, all opened, none closed."""
    level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return level * depth


@pytest.mark.parametrize(
    ("content", "syntax"),
    [
        (nested(5000), ExplicitVRLittleEndian),
        (b"\0" * 1000, ImplicitVRLittleEndian),
        (b"\xff" * 1000, ExplicitVRBigEndian),
        (b"\x08\x00\x16\x00UI\x10\x00" + b"1.2\xff\xfe\x00", ExplicitVRLittleEndian),
        (b"garbage", DeflatedExplicitVRLittleEndian),
        (b"", ExplicitVRLittleEndian),
    ],
    ids=["nested", "zeros", "ones", "cut", "no deflate stream", "empty"],
)
def test_a_hostile_header_gives_a_problem_and_no_exception(content, syntax):
    assert read_identifiers(content, str(syntax)).problem


@pytest.mark.parametrize("tag", [b"\x08\0\x40\x11", b"\x09\0\x01\x10"], ids=["standard", "private"])
def test_a_crowd_of_empty_items_takes_neither_memory_nor_time(tag):
    uid = b"\x08\0\x18\0\x06\0\0\x001.2.3\0"
    items = tag + b"\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0" * 200_000
    content = uid + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    tracemalloc.start()
    identifiers = read_identifiers(content, str(ImplicitVRLittleEndian))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert identifiers.problem == "the dataset cannot be parsed (too much before its UIDs)"
    assert peak < 64 << 20


def test_the_head_of_an_object_that_names_thousands_of_films_is_read():
    state = Dataset()
    state.SOPClassUID, state.SOPInstanceUID = DX, "2.25.1"
    state.ReferencedImageSequence = [Dataset() for _ in range(3000)]
    for number, item in enumerate(state.ReferencedImageSequence):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = DX, f"2.25.{number}"
    state.StudyInstanceUID, state.SeriesInstanceUID = "2.25.2", "2.25.3"
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
        identifiers = read_identifiers(encode_dataset(state, syntax), str(syntax))
        assert (identifiers.problem, identifiers.study_uid) == (None, "2.25.2")


def test_a_deflated_bomb_is_not_inflated_whole():
    bomb = Dataset()
    bomb.SOPClassUID, bomb.SOPInstanceUID = DX, "2.25.1"
    bomb.add_new(0x00090010, "LO", "BOMB")
    bomb.add_new(0x00091001, "OB", bytes(200 << 20))
    bomb.StudyInstanceUID = "2.25.2"
    content = encode_dataset(bomb, DeflatedExplicitVRLittleEndian)
    del bomb
    assert len(content) < 1 << 20
    began = time.process_time()
    identifiers = read_identifiers(content, str(DeflatedExplicitVRLittleEndian))
    assert time.process_time() - began < 1
    assert identifiers.study_uid is None
    assert identifiers.problem
