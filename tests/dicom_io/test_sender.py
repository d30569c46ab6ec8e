"""What the sender makes of a peer's answers, faults and silences."""

import socket
import struct
import threading
import time
from dataclasses import replace

import pytest
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_io.delivery_status import disposition_of
from dicom_io.errors import AssociationFailed
from dicom_io.sender import Disposition, echo, send
from tests.dicom_io.peers import DX, encoded, radiograph, remote, storage_peer

UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, Disposition.DELIVERED),
        (0xB000, Disposition.DELIVERED_WITH_WARNING),
        (0xB006, Disposition.DELIVERED_WITH_WARNING),
        (0xB007, Disposition.DELIVERED_WITH_WARNING),
        (0x0107, Disposition.DELIVERED_WITH_WARNING),
        (0x0111, Disposition.DELIVERED_WITH_WARNING),
        (0xA700, Disposition.RETRY),
        (0xA7FF, Disposition.RETRY),
        (0x0110, Disposition.RETRY),
        (0x0213, Disposition.RETRY),
        (0x0122, Disposition.CONTEXT_REFUSED),
        (0xA900, Disposition.REFUSED),
        (0xC000, Disposition.REFUSED),
        (0xCFFF, Disposition.REFUSED),
        (0x0124, Disposition.REFUSED),
        (0x0117, Disposition.REFUSED),
    ],
)
def test_every_answer_of_a_peer_is_recorded_and_classified(status, expected):
    with storage_peer([(DX, UNCOMPRESSED)], lambda event: status) as peer:
        [outcome] = send([radiograph()], remote(peer.port))
    assert outcome.status == status
    assert outcome.disposition is expected is disposition_of(status)


def test_no_status_is_without_a_disposition():
    for status in range(0x10000):
        delivered = disposition_of(status) is Disposition.DELIVERED
        assert delivered == (status == 0)


def test_each_object_has_its_own_answer():
    answers = iter([0x0000, 0xA700, 0xC000, 0xB000])
    with storage_peer([(DX, UNCOMPRESSED)], lambda event: next(answers)) as peer:
        outcomes = send([radiograph(n) for n in range(4)], remote(peer.port))
    assert [o.status for o in outcomes] == [0x0000, 0xA700, 0xC000, 0xB000]


# --- peers that fail -------------------------------------------------------------------------


def test_a_peer_that_is_down_is_a_transient_failure():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(AssociationFailed, match="cannot be reached") as caught:
        send([radiograph()], remote(port))
    assert caught.value.transient


def test_a_host_that_does_not_exist_is_a_transient_failure():
    nowhere = replace(remote(104), host="no-such-host.invalid")
    with pytest.raises(AssociationFailed, match=r"no-such-host\.invalid") as caught:
        send([radiograph()], nowhere)
    assert caught.value.transient


def test_a_peer_that_does_not_know_our_title_is_a_permanent_failure_that_names_it():
    entity = AE("PACS")
    entity.require_calling_aet = ["SOMEONE"]
    with (
        storage_peer([(DX, UNCOMPRESSED)], entity=entity) as peer,
        pytest.raises(AssociationFailed, match="NODE") as caught,
    ):
        send([radiograph()], remote(peer.port, calling_ae_title="NODE"))
    assert not caught.value.transient


def test_a_peer_that_is_full_is_a_transient_failure():
    entity = AE("PACS")
    entity.maximum_associations = 1
    with storage_peer([(DX, UNCOMPRESSED)], entity=entity) as peer:
        holder = AE("HOLDER").associate("127.0.0.1", peer.port, contexts=[build_context(DX)])
        assert holder.is_established
        with pytest.raises(AssociationFailed) as caught:
            send([radiograph()], remote(peer.port))
        holder.release()
    assert caught.value.transient


def test_a_peer_that_aborts_at_an_object_leaves_it_and_the_rest_to_be_tried_again():
    def answer(event):
        if event.request.AffectedSOPInstanceUID == radiograph(2).SOPInstanceUID:
            event.assoc.abort()
        return 0x0000

    began = time.monotonic()
    with storage_peer([(DX, UNCOMPRESSED)], answer) as peer:
        outcomes = send([radiograph(n) for n in (1, 2, 3)], remote(peer.port))
    assert [o.disposition for o in outcomes] == [
        Disposition.DELIVERED,
        Disposition.RETRY,
        Disposition.RETRY,
    ]
    assert [o.status for o in outcomes] == [0x0000, None, None]
    assert time.monotonic() - began < 10


@pytest.fixture
def silent_port():
    """A peer that takes connections and then neither reads nor writes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_peer_that_never_answers_the_association_is_a_transient_failure(silent_port):
    with pytest.raises(AssociationFailed) as caught:
        send([radiograph()], remote(silent_port, association_timeout_seconds=0.3))
    assert caught.value.transient


def test_a_peer_that_never_answers_an_object_costs_no_more_than_the_timeout():
    holding = threading.Event()

    def answer(event):
        holding.wait(20)
        return 0x0000

    with storage_peer([(DX, UNCOMPRESSED)], answer) as peer:
        began = time.monotonic()
        slow = remote(peer.port, response_timeout_seconds=0.3)
        outcomes = send([radiograph(1), radiograph(2)], slow)
        took = time.monotonic() - began
        holding.set()
    assert {o.disposition for o in outcomes} == {Disposition.RETRY}
    assert took < 10


def test_a_peer_that_stops_reading_in_the_middle_of_an_object_is_given_up():
    """The association is accepted by a real peer whose connection is then no longer read."""
    listening = socket.create_server(("127.0.0.1", 0))
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:

        def relay():
            ours, _ = listening.accept()
            theirs = socket.create_connection(("127.0.0.1", peer.port))
            theirs.sendall(ours.recv(1 << 16))
            ours.sendall(theirs.recv(1 << 16))
            stop.wait(20)
            ours.close()
            theirs.close()

        stop = threading.Event()
        relaying = threading.Thread(target=relay)
        relaying.start()
        began = time.monotonic()
        port = listening.getsockname()[1]
        stuck = remote(port, network_timeout_seconds=0.5, response_timeout_seconds=1)
        [outcome] = send([radiograph(side=2048)], stuck)
        took = time.monotonic() - began
        stop.set()
        relaying.join(20)
    listening.close()
    assert outcome.disposition is Disposition.RETRY
    assert took < 15


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_peer_that_hangs_up_in_the_middle_of_an_object_gets_it_whole_the_next_time(how, tmp_path):
    """A real peer behind a relay that breaks off after a part of the first object."""
    path = tmp_path / "film.dcm"
    film = radiograph(side=2048)
    film.save_as(path, enforce_file_format=True)
    with (
        storage_peer([(DX, UNCOMPRESSED)]) as peer,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):

        def relay():
            ours, _ = listening.accept()
            with socket.create_connection(("127.0.0.1", peer.port)) as theirs:
                theirs.sendall(ours.recv(1 << 16))
                ours.sendall(theirs.recv(1 << 16))
                theirs.sendall(ours.recv(1 << 16))
            if how == "resets":
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ours.close()

        relaying = threading.Thread(target=relay)
        relaying.start()
        outcomes = send([path, path], remote(listening.getsockname()[1]))
        relaying.join(20)
        assert [(o.disposition, o.status) for o in outcomes] == [(Disposition.RETRY, None)] * 2
        assert peer.received == []

        [outcome] = send([path], remote(peer.port))
        assert outcome.disposition is Disposition.DELIVERED
        [received] = peer.received
    assert received.dataset == encoded(film)


# --- echo ------------------------------------------------------------------------------------


def test_echo_finds_a_peer_that_is_there():
    with storage_peer([("1.2.840.10008.1.1", UNCOMPRESSED)]) as peer:
        echo(remote(peer.port))


def test_echo_to_a_peer_without_verification_says_so():
    with (
        storage_peer([(SegmentationStorage, UNCOMPRESSED)]) as peer,
        pytest.raises(AssociationFailed, match="does not offer C-ECHO") as caught,
    ):
        echo(remote(peer.port))
    assert not caught.value.transient


def test_echo_to_nobody_fails(silent_port):
    with pytest.raises(AssociationFailed):
        echo(remote(silent_port, association_timeout_seconds=0.3))
