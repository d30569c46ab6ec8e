"""Peers that ask for what no library would ask for: answered or aborted, and nothing is left."""

import logging
import socket
import threading
import time

import pytest

from dicom_io.access_control import AllowedPeer, Refusal
from dicom_io.listener import Listener
from tests.dicom_io.association_requests import (
    associate_request,
    item,
    presentation_context,
    role_selection,
    user_information,
)
from tests.dicom_io.peers import association_with, is_closed

ACCEPT, ABORT = b"\x02", b"\x07"
USER = user_information()
SOUND = associate_request(presentation_context(), USER)


@pytest.fixture
def broken_threads(monkeypatch):
    """What ended threads of this process in an unexpected way."""
    broken = []
    monkeypatch.setattr(threading, "excepthook", broken.append)
    return broken


def connect(listener: Listener, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", listener.port), timeout=20, source_address=(source, 0)
    )


def kind_of_answer(listener: Listener, request: bytes) -> bytes:
    """The type of the first PDU that is answered; empty if the listener hangs up instead."""
    with connect(listener) as peer:
        peer.sendall(request)
        try:
            return peer.recv(1)
        except ConnectionResetError:
            return b""


STRANGE_REQUESTS = {
    "no transfer syntax": associate_request(presentation_context(transfer_syntaxes=()), USER),
    "no context": associate_request(USER),
    "no user information": associate_request(presentation_context()),
    "context with an even number": associate_request(presentation_context(2), USER),
    "the same context 5,000 times": associate_request(presentation_context() * 5000, USER),
    "5,000 contexts": associate_request(
        *(presentation_context(2 * n % 256 + 1, f"1.2.{n}") for n in range(5000)), USER
    ),
    "a context with 2,500 syntaxes": associate_request(
        presentation_context(transfer_syntaxes=tuple(f"1.2.{n}" for n in range(2500))), USER
    ),
    "2,000 role selections": associate_request(
        presentation_context(), user_information(*[role_selection()] * 2000)
    ),
    "10,000 application contexts": associate_request(
        item(0x10, b"1.2.3") * 10_000, presentation_context(), USER
    ),
    "items that do not exist": associate_request(item(0x99, b"") * 30_000, USER),
    "a path as abstract syntax": associate_request(presentation_context(1, "../../passwd"), USER),
    "a UID of 10 KB": associate_request(presentation_context(1, "1." * 5000), USER),
    "a calling AE title of zeros": associate_request(USER, calling=bytes(16)),
    "a calling AE title that is no text": associate_request(USER, calling=b"\xff" * 16),
    "an empty calling AE title": associate_request(USER, calling=b""),
    "a user identity": associate_request(
        presentation_context(), user_information(item(0x58, b"\1\1\0\4user\0\0"))
    ),
    "a context longer than the PDU": associate_request(item(0x20, bytes(4))[:3] + b"\xff"),
}


@pytest.mark.parametrize("request_", STRANGE_REQUESTS.values(), ids=STRANGE_REQUESTS)
def test_a_strange_request_is_answered_or_aborted_and_leaves_nothing(
    listen, intake, broken_threads, request_
):
    listener = listen()
    kind_of_answer(listener, request_)
    assert kind_of_answer(listener, SOUND) == ACCEPT
    accepted = len(intake.of_kind("accepted"))
    assert len(intake.wait_for("ended", accepted)) == accepted
    assert listener.open_associations == ()
    assert broken_threads == []


def test_a_request_that_cannot_be_negotiated_is_aborted(listen):
    request = STRANGE_REQUESTS["no transfer syntax"]
    assert kind_of_answer(listen(), request) == ABORT


def test_a_request_longer_than_any_sound_one_is_aborted_before_it_is_read(listen):
    with connect(listen()) as endless:
        endless.sendall(b"\x01\x00" + (300_000).to_bytes(4, "big"))
        assert endless.recv(1) == ABORT


def test_a_request_that_takes_long_to_take_apart_is_answered_all_the_same(listen):
    assert kind_of_answer(listen(), STRANGE_REQUESTS["5,000 contexts"]) == ACCEPT


def test_every_sound_request_fits(listen):
    contexts = [
        presentation_context(2 * n + 1, "1.2.840.10008.5.1.4.1.1.1." + str(n), SYNTAXES)
        for n in range(128)
    ]
    request = associate_request(*contexts, USER)
    assert len(request) > 100_000
    assert kind_of_answer(listen(), request) == ACCEPT


SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(50, 90))


def test_nobody_who_is_not_let_in_writes_a_line_into_the_log(listen, intake, caplog):
    listener = listen(allowed_calling=(AllowedPeer("ROOM1"),))
    caplog.clear()
    # pynetdicom's own loggers are silent in the node (worker.logs).
    caplog.set_level(logging.CRITICAL, "pynetdicom")
    caplog.set_level(logging.INFO, "dicom_io")
    for request in (*STRANGE_REQUESTS.values(), SOUND, b"GET / HTTP/1.1\r\n\r\n"):
        kind_of_answer(listener, request)
    assert intake.wait_for("refused", 5)[0] is Refusal.UNKNOWN_CALLING
    assert caplog.messages == []


# --- who counts as one -----------------------------------------------------------------------


def test_who_may_take_any_ae_title_gains_no_associations_by_it(listen, intake):
    allowed = (AllowedPeer("MODALITY"), AllowedPeer(None, maximum_associations=2))
    listener = listen(allowed_calling=allowed)
    with (
        association_with(listener, calling="A"),
        association_with(listener, calling="B"),
        association_with(listener, calling="C") as third,
        association_with(listener, calling="MODALITY") as known,
    ):
        assert third.is_rejected
        assert known.is_established
    assert intake.wait_for("refused") == [Refusal.TOO_MANY_OF_PEER]


def test_named_peers_behind_one_address_do_not_count_together(listen):
    allowed = tuple(AllowedPeer(name, maximum_associations=1) for name in ("CT1", "CT2"))
    listener = listen(allowed_calling=allowed)
    with (
        association_with(listener, calling="CT1"),
        association_with(listener, calling="CT2") as other,
    ):
        assert other.is_established


def test_silent_strangers_of_many_addresses_leave_room_for_those_who_may_call(listen):
    listener = listen(
        maximum_associations=2,
        maximum_half_open_per_address=3,
        association_timeout_seconds=20,
        allowed_calling=(AllowedPeer("MODALITY", ("127.0.0.1",)),),
    )
    crowd = [connect(listener, f"127.0.1.{number}") for number in range(1, 60)]
    deadline = time.monotonic() + 15
    while sum(is_closed(one) for one in crowd) < 56:
        assert time.monotonic() < deadline, "silent strangers pile up"
        time.sleep(0.01)
    with association_with(listener) as association:
        assert association.is_established
    for one in crowd:
        one.close()
