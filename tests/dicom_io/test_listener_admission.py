"""Who gets an association, how many of them, and who has to wait."""

import time
from contextlib import ExitStack

import pytest
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.sop_class import Verification

from dicom_io.access_control import AllowedPeer, Refusal
from dicom_io.listener import ListenerConfiguration
from tests.dicom_io.peers import (
    DX,
    association_with,
    connect,
)


def rejection(association):
    answer = association.acceptor.primitive
    assert association.is_rejected
    return (answer.result, answer.result_source, answer.diagnostic)


def test_another_called_ae_title_is_refused_where_ours_is_required(listen, intake):
    listener = listen(require_called_ae_title=True)
    with association_with(listener, called="SOMEONE") as association:
        assert rejection(association) == (1, 1, 7)
    assert intake.wait_for("refused") == [Refusal.CALLED_AE_TITLE]
    with association_with(listener, called="MULTIMIX") as association:
        assert association.is_established


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (AllowedPeer("MODALITY"), None),
        (AllowedPeer("MODALITY", ("127.0.0.0/8",)), None),
        (AllowedPeer("MODALITY", ("::1", "127.0.0.1")), None),
        (AllowedPeer("MODALITY", ("10.0.0.0/8",)), Refusal.WRONG_NETWORK),
        (AllowedPeer("OTHER"), Refusal.UNKNOWN_CALLING),
    ],
)
def test_only_known_peers_from_their_networks_get_in(listen, intake, allowed, expected):
    with association_with(listen(allowed_calling=(allowed,))) as association:
        if expected is None:
            assert association.is_established
        else:
            assert rejection(association) == (1, 1, 3)
            assert intake.wait_for("refused") == [expected]


def test_associations_beyond_the_limit_are_refused_for_the_time_being(listen, intake):
    listener = listen(maximum_associations=2)
    with (
        association_with(listener),
        association_with(listener),
        association_with(listener) as third,
    ):
        assert rejection(third) == (2, 3, 2)
    assert intake.wait_for("refused") == [Refusal.TOO_MANY]
    intake.wait_for("ended", 2)
    with association_with(listener) as later:
        assert later.is_established


def test_as_many_associations_as_configured_are_open_at_once(listen):
    listener = listen(maximum_associations=15)
    with ExitStack() as stack:
        opened = [stack.enter_context(association_with(listener)) for _ in range(15)]
        assert all(association.is_established for association in opened)
        assert len(listener.open_associations) == 15


def test_a_malformed_association_request_gives_its_connection_back_at_once(listen):
    listener = listen(maximum_associations=1, association_timeout_seconds=15)
    malformed = b"\x01\x00\x00\x00\x00\x50" + b"\xff" * 80
    began = time.monotonic()
    for _ in range(
        2 * ListenerConfiguration("MULTIMIX", maximum_associations=1).maximum_connections
    ):
        with connect(listener) as peer:
            peer.sendall(malformed)
            while peer.recv(100):
                continue
    # The peer sees its connection closed a moment before the listener has counted it.
    established = False
    while not established and time.monotonic() - began < 14:
        with association_with(listener) as association:
            established = association.is_established
    assert established


def test_one_peer_cannot_take_all_associations(listen):
    peers = (AllowedPeer("GREEDY", maximum_associations=1), AllowedPeer("MODEST"))
    listener = listen(allowed_calling=peers)
    with association_with(listener, calling="GREEDY") as first:
        assert first.is_established
        with association_with(listener, calling="GREEDY") as second:
            assert rejection(second) == (2, 3, 2)
        with association_with(listener, calling="MODEST") as other:
            assert other.is_established


def test_below_the_low_water_mark_associations_are_refused_for_the_time_being(
    listen, store, intake
):
    listener = listen()
    store.disk.low_water_mark_bytes = 1 << 60
    with association_with(listener) as association:
        assert rejection(association) == (2, 3, 2)
    assert intake.wait_for("refused") == [Refusal.LOW_DISK]


def test_while_the_intake_is_away_associations_are_refused_for_the_time_being(listen, intake):
    listener = listen()
    intake.fail_on_accept = ConnectionError("the database is away")
    with association_with(listener) as association:
        assert rejection(association) == (2, 3, 1)
    intake.fail_on_accept = None
    with association_with(listener) as association:
        assert association.is_established


def test_the_limit_of_a_peer_holds_where_the_list_says_nothing_else(listen, intake):
    listener = listen(
        allowed_calling=(AllowedPeer("BUSY", maximum_associations=2), AllowedPeer(None)),
        maximum_associations_per_peer=1,
    )
    with association_with(listener, calling="BUSY"), association_with(listener) as first:
        assert first.is_established
        with association_with(listener) as second:
            assert rejection(second) == (2, 3, 2)
        with association_with(listener, calling="BUSY") as other:
            assert other.is_established
    assert intake.wait_for("refused") == [Refusal.TOO_MANY_OF_PEER]


def test_a_peer_without_the_right_to_send_may_only_verify(listen):
    listener = listen(allowed_calling=(AllowedPeer("PACS", may_send=False), AllowedPeer(None)))
    contexts = [(DX, [ExplicitVRLittleEndian]), (Verification, [ImplicitVRLittleEndian])]
    for calling, accepted in (("PACS", [Verification]), ("CT1", [DX, Verification])):
        with association_with(listener, calling=calling, contexts=contexts) as association:
            assert [c.abstract_syntax for c in association.accepted_contexts] == accepted
