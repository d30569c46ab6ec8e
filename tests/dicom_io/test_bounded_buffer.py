"""No object, and not all of them together, takes more memory than it may."""

import gc
import threading

import pytest

from dicom_io.bounded_buffer import BoundedBuffer, SharedBytes


def test_what_fits_is_kept_whole():
    shared = SharedBytes(10)
    buffer = BoundedBuffer(10, shared)
    assert [buffer.write(b"12345"), buffer.write(b"67890")] == [5, 5]
    assert buffer.getvalue() == b"1234567890"
    assert not buffer.overflowed
    assert shared.held == 10


def test_an_object_that_is_too_long_is_dropped_and_holds_nothing():
    shared = SharedBytes(100)
    buffer = BoundedBuffer(10, shared)
    buffer.write(b"1234567890")
    assert buffer.write(b"1") == 1, "the rest of it is read and let go"
    assert buffer.is_too_long
    assert not buffer.found_no_room
    assert (buffer.getvalue(), shared.held) == (b"", 0)
    buffer.write(b"1")
    assert (buffer.getvalue(), shared.held) == (b"", 0)


def test_an_object_that_finds_no_room_beside_others_is_dropped_and_they_are_not():
    shared = SharedBytes(10)
    first, second = BoundedBuffer(10, shared), BoundedBuffer(10, shared)
    first.write(b"123456")
    second.write(b"1234")
    second.write(b"5")
    assert second.found_no_room
    assert not second.is_too_long
    assert (second.getvalue(), shared.held) == (b"", 6)
    first.write(b"7890")
    assert first.getvalue() == b"1234567890"


@pytest.mark.parametrize("content", [b"", b"1234"])
def test_room_is_free_again_when_nobody_refers_to_the_object(content):
    shared = SharedBytes(4)
    buffer = BoundedBuffer(10, shared)
    buffer.write(content)
    del buffer
    gc.collect()
    assert shared.held == 0
    assert shared.take(4)
    assert not shared.take(1)


def test_room_that_is_given_back_while_another_takes_some_is_not_lost():
    shared = SharedBytes(8_000)

    def fill_and_drop():
        for _ in range(500):
            BoundedBuffer(1_000, shared).write(bytes(1_000))

    threads = [threading.Thread(target=fill_and_drop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.held == 0


def test_without_a_shared_limit_only_the_objects_own_counts():
    buffer = BoundedBuffer(3)
    buffer.write(b"123")
    assert not buffer.overflowed
