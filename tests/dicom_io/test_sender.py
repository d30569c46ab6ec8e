import socket
import struct
import threading
import time

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_io.delivery_status import disposition_of
from dicom_io.errors import AssociationFailed
from dicom_io.outgoing import batches, contexts_for, examine
from dicom_io.part10 import file_header
from dicom_io.sender import Disposition, RemoteAE, echo, send
from dicom_io.storage import InstanceStore
from dicom_io.transfer_syntaxes import sample_film, sample_object
from tests.dicom_io.peers import DX, encoded, radiograph, storage_peer

UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
QUICK = {"connection_timeout_seconds": 5, "association_timeout_seconds": 5}


def remote(port: int, **settings) -> RemoteAE:
    return RemoteAE("PACS", "127.0.0.1", port, **{**QUICK, **settings})


def file_of(folder, dataset, name="film.dcm"):
    path = folder / name
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def compressed(syntax):
    film = sample_object(syntax, 12)
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    film.StudyInstanceUID, film.SeriesInstanceUID = "2.25.2", "2.25.3"
    return film


def test_files_go_out_bit_for_bit_in_one_association(tmp_path):
    store = InstanceStore(tmp_path)
    films = [radiograph(number) for number in range(1, 6)]
    paths = [store.path_of(store.keep_dataset(film).relative_path) for film in films]
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        outcomes = send(paths, remote(peer.port))
    assert len(peer.accepted) == 1
    assert {outcome.disposition for outcome in outcomes} == {Disposition.DELIVERED}
    assert [o.sop_instance_uid for o in outcomes] == [f.SOPInstanceUID for f in films]
    assert [r.dataset for r in peer.received] == [encoded(film) for film in films]
    assert {r.transfer_syntax for r in peer.received} == {ExplicitVRLittleEndian}


def test_datasets_go_out_as_they_are():
    film = radiograph(3)
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        [outcome] = send([film], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert outcome.status == 0
    assert peer.received[0].dataset == encoded(film)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless])
def test_a_compressed_file_stays_compressed_where_the_peer_takes_it(tmp_path, syntax):
    path = file_of(tmp_path, compressed(syntax))
    film_class = compressed(syntax).SOPClassUID
    with storage_peer([(film_class, [syntax, *UNCOMPRESSED])]) as peer:
        [outcome] = send([path], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert peer.received[0].transfer_syntax == syntax
    assert path.read_bytes().endswith(peer.received[0].dataset)


@pytest.mark.parametrize("accepted", UNCOMPRESSED)
def test_a_compressed_file_is_decompressed_where_the_peer_takes_nothing_else(tmp_path, accepted):
    film = compressed(JPEGLosslessSV1)
    path = file_of(tmp_path, film)
    before = path.read_bytes()
    with storage_peer([(film.SOPClassUID, [accepted])]) as peer:
        [outcome] = send([path], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    [received] = peer.received
    assert received.transfer_syntax == accepted
    assert received.sop_instance_uid == film.SOPInstanceUID
    assert sample_film(12).astype("<u2").tobytes() in received.dataset
    assert path.read_bytes() == before


def test_a_dataset_is_not_changed_by_being_decompressed_for_a_peer():
    film = compressed(JPEGLosslessSV1)
    pixels = film.PixelData
    with storage_peer([(film.SOPClassUID, UNCOMPRESSED)]) as peer:
        [outcome] = send([film], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert film.PixelData == pixels
    assert film.file_meta.TransferSyntaxUID == JPEGLosslessSV1


def test_a_deflated_file_is_inflated_where_the_peer_does_not_take_it(tmp_path):
    film = radiograph(transfer_syntax=DeflatedExplicitVRLittleEndian)
    with storage_peer([(DX, [ImplicitVRLittleEndian])]) as peer:
        [outcome] = send([file_of(tmp_path, film)], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert film.PixelData in peer.received[0].dataset


def test_a_transfer_syntax_that_cannot_be_converted_is_a_refused_context(tmp_path):
    film = radiograph(transfer_syntax=ExplicitVRBigEndian)
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        [outcome] = send([file_of(tmp_path, film)], remote(peer.port))
    assert outcome.disposition is Disposition.CONTEXT_REFUSED
    assert peer.received == []


def test_a_class_that_the_peer_does_not_take_is_told_apart_and_the_others_go_through():
    capture = radiograph(2, sop_class=SecondaryCaptureImageStorage)
    with storage_peer([(SecondaryCaptureImageStorage, UNCOMPRESSED)]) as peer:
        refused, delivered = send([radiograph(1), capture], remote(peer.port))
    assert refused.disposition is Disposition.CONTEXT_REFUSED
    assert refused.status is None
    assert delivered.disposition is Disposition.DELIVERED


def test_a_peer_that_takes_nothing_at_all_refuses_every_context():
    with storage_peer([(CTImageStorage, UNCOMPRESSED)]) as peer:
        outcomes = send([radiograph(1), radiograph(2)], remote(peer.port))
    assert {o.disposition for o in outcomes} == {Disposition.CONTEXT_REFUSED}


def test_a_file_whose_meta_names_another_instance_goes_out_under_its_own_name(tmp_path):
    film = radiograph(5)
    header = file_header(
        transfer_syntax_uid=ExplicitVRLittleEndian, sop_class_uid=DX, sop_instance_uid="2.25.999"
    )
    path = tmp_path / "export.dcm"
    path.write_bytes(header + encoded(film))
    assert dcmread(path).file_meta.MediaStorageSOPInstanceUID == "2.25.999"
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        [outcome] = send([path], remote(peer.port))
    assert outcome.disposition is Disposition.DELIVERED
    assert peer.received[0].sop_instance_uid == film.SOPInstanceUID == outcome.sop_instance_uid
    assert peer.received[0].dataset == encoded(film)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM")
    objects = [tmp_path / "missing.dcm", radiograph(1), tmp_path / "text.dcm"]
    with storage_peer([(DX, UNCOMPRESSED)]) as peer:
        missing, delivered, text = send(objects, remote(peer.port))
    assert missing.disposition is text.disposition is Disposition.REFUSED
    assert "cannot be read" in missing.detail
    assert delivered.disposition is Disposition.DELIVERED


def test_nothing_to_send_opens_no_association():
    assert send([], remote(1)) == []


def test_more_contexts_than_one_association_holds_take_several():
    objects = []
    for number in range(200):
        film = radiograph(number, side=4)
        film.file_meta = FileMetaDataset()
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{number}.77"
        objects.append(film)
    outgoing = [examine(film) for film in objects]
    parts = list(batches(outgoing))
    assert [o for part in parts for o in part] == outgoing
    assert all(len(contexts_for(part)) <= 128 for part in parts)
    contexts = [(film.SOPClassUID, UNCOMPRESSED) for film in objects]
    with storage_peer(contexts) as peer:
        outcomes = send(objects, remote(peer.port))
    assert len(outcomes) == 200
    # pynetdicom knows no service for invented classes, but every context must have been offered.
    assert Disposition.CONTEXT_REFUSED not in {o.disposition for o in outcomes}


# --- answers ---------------------------------------------------------------------------------


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
    nowhere = RemoteAE("PACS", "no-such-host.invalid", 104, **QUICK)
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
