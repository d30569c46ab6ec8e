"""Peers that are slow or silent, or never come to an end, hold up nobody else."""

import socket
import threading
import time

from pydicom.uid import (
    ImplicitVRLittleEndian,
)
from pynetdicom.sop_class import Verification

from tests.dicom_io.peers import (
    association_with,
    connect,
    is_closed,
)


def test_a_connection_that_says_nothing_is_closed_in_time(listen):
    with connect(listen(association_timeout_seconds=0.2)) as silent:
        assert silent.recv(1) == b""


def test_a_request_that_trickles_in_is_cut_off(listen):
    with connect(listen(association_timeout_seconds=0.3)) as slow:
        began = time.monotonic()
        try:
            while time.monotonic() - began < 20:
                slow.sendall(b"\x01")
                time.sleep(0.02)
        except OSError:
            cut_off_after = time.monotonic() - began
        assert cut_off_after < 5


def test_a_first_pdu_that_is_no_association_request_is_aborted(listen):
    with connect(listen()) as wrong:
        wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wrong.recv(10)[:1] == b"\x07"


def test_an_association_request_without_end_is_aborted(listen):
    with connect(listen()) as endless:
        endless.sendall(b"\x01\x00\xff\xff\xff\xff")
        assert endless.recv(10)[:1] == b"\x07"


def test_a_silent_association_is_aborted(listen, intake):
    with association_with(listen(idle_timeout_seconds=0.3)) as association:
        assert intake.wait_for("ended") == [False]
        association.join(20)
        assert association.is_aborted


def test_a_pdu_that_never_ends_is_cut_off(listen, intake):
    with association_with(listen(idle_timeout_seconds=0.3)) as association:
        association.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x10\x00\x00")
        assert intake.wait_for("ended") == [False]


def test_an_association_that_lasts_too_long_is_ended(listen, intake):
    contexts = [(Verification, [ImplicitVRLittleEndian])]
    listener = listen(maximum_association_seconds=0.5)
    with association_with(listener, contexts=contexts) as association:
        deadline = time.monotonic() + 20
        while "Status" in association.send_c_echo():
            assert time.monotonic() < deadline
        assert intake.wait_for("ended") == [False]


def test_connections_of_one_address_that_ask_for_nothing_leave_room_for_other_addresses(listen):
    listener = listen(maximum_half_open_per_address=3, association_timeout_seconds=20)
    crowd = [connect(listener) for _ in range(30)]
    deadline = time.monotonic() + 10
    while sum(is_closed(one) for one in crowd) < 27:
        assert time.monotonic() < deadline, "silent connections pile up"
        time.sleep(0.01)
    neighbour = socket.create_connection(
        ("127.0.0.1", listener.port), timeout=20, source_address=("127.0.0.2", 0)
    )
    neighbour.sendall(b"GET / HTTP/1.1")
    assert neighbour.recv(10)[:1] == b"\x07"  # A-ABORT: it was heard
    for one in (*crowd, neighbour):
        one.close()


def test_bare_connections_leave_no_thread_and_no_association(listen, intake):
    listener = listen()
    before = threading.active_count()
    for _ in range(300):
        connect(listener).close()
    with association_with(listener) as association:
        assert association.is_established
    intake.wait_for("ended")
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert threading.active_count() <= before
    assert len(intake.of_kind("accepted")) == 1


def test_connections_that_say_nothing_do_not_keep_a_modality_out_for_long(listen):
    listener = listen(maximum_associations=1, association_timeout_seconds=0.5)
    crowd = [connect(listener) for _ in range(100)]
    deadline = time.monotonic() + 20
    while True:
        with association_with(listener) as association:
            if association.is_established:
                break
        assert time.monotonic() < deadline, "the crowd keeps the modality out"
    for one in crowd:
        one.close()
