import hashlib
import logging
import socket
import threading
import time

import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom.sop_class import Verification

from dicom_io.access_control import AllowedPeer
from dicom_io.errors import OutOfSpace, SettingsError
from dicom_io.listener import ListenerConfiguration
from dicom_io.part10 import encode_dataset
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES, decodable_transfer_syntaxes
from tests.dicom_io.peers import (
    DX,
    association_with,
    encoded,
    radiograph,
    store_all_but_the_end,
    store_bytes,
)

SUCCESS = 0x0000


def stored_bytes(store, instance) -> bytes:
    return store.read_encoded_dataset(instance.stored.relative_path)


def test_an_instance_is_stored_bit_for_bit_and_reported_before_success(listen, store, intake):
    film = radiograph()
    content = encoded(film)
    with association_with(listen()) as association:
        assert store_bytes(association, content) == SUCCESS
    [instance] = intake.of_kind("stored")
    assert instance.stored.sha256 == hashlib.sha256(content).hexdigest()
    assert stored_bytes(store, instance) == content
    assert instance.study_uid == film.StudyInstanceUID
    assert instance.series_uid == film.SeriesInstanceUID
    assert instance.sop_instance_uid == film.SOPInstanceUID
    assert instance.sop_class_uid == DX
    assert instance.problem is None


@pytest.mark.parametrize("syntax", decodable_transfer_syntaxes(), ids=lambda uid: uid.name)
def test_every_offered_transfer_syntax_comes_in_unchanged(listen, store, intake, syntax):
    film = radiograph(transfer_syntax=syntax)
    content = encode_dataset(film, syntax)
    with association_with(listen(), contexts=[(DX, [syntax])]) as association:
        assert store_bytes(association, content) == SUCCESS
    [instance] = intake.of_kind("stored")
    assert instance.stored.transfer_syntax_uid == syntax
    assert instance.study_uid == film.StudyInstanceUID
    assert stored_bytes(store, instance) == content


def test_every_chest_class_is_accepted_and_nothing_else(listen):
    contexts = [(uid, [ExplicitVRLittleEndian]) for uid in (*CHEST_STORAGE_CLASSES, CTImageStorage)]
    with association_with(listen(), contexts=contexts) as association:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
    assert accepted == set(CHEST_STORAGE_CLASSES)


def test_where_the_sender_leaves_the_choice_uncompressed_is_chosen(listen):
    syntaxes = [JPEG2000Lossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    with association_with(listen(), contexts=[(DX, syntaxes)]) as association:
        assert association.accepted_contexts[0].transfer_syntax == [ExplicitVRLittleEndian]


def test_echo_is_answered(listen):
    contexts = [(Verification, [ImplicitVRLittleEndian])]
    with association_with(listen(), contexts=contexts) as association:
        assert association.send_c_echo().Status == SUCCESS


def test_an_association_is_told_in_order_from_acceptance_to_release(listen, intake):
    with association_with(listen(), calling="ROOM1") as association:
        for number in (1, 2):
            film = radiograph(number)
            assert (
                store_bytes(association, encoded(film), sop_instance_uid=str(film.SOPInstanceUID))
                == SUCCESS
            )
    assert intake.wait_for("ended") == [True]
    assert [kind for kind, _ in intake.events] == ["accepted", "stored", "stored", "ended"]
    [facts] = intake.of_kind("accepted")
    assert (facts.calling_ae_title, facts.called_ae_title) == ("ROOM1", "MULTIMIX")
    assert facts.peer_address == "127.0.0.1"
    assert len(facts.association_uid) == 36


def test_an_aborted_association_ends_unreleased(listen, intake):
    with association_with(listen()) as association:
        association.abort()
    assert intake.wait_for("ended") == [False]


def test_a_peer_that_vanishes_in_the_middle_of_an_object_leaves_nothing(listen, store, intake):
    listener = listen()
    with association_with(listener) as association:
        wire = association.dul.socket.socket
        wire.sendall(b"\x04\x00\x00\x10\x00\x00" + b"\x00\x0f\xff\xfc\x01\x00" + bytes(1000))
        wire.shutdown(socket.SHUT_RDWR)
        assert intake.wait_for("ended") == [False]
    assert not [path for path in store.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(OutOfSpace("full"), 0xA700), (ConnectionError("the database is away"), 0xA700)],
)
def test_what_fails_on_our_side_asks_the_sender_to_try_again(listen, intake, failure, status):
    intake.fail_on_store = failure
    with association_with(listen()) as association:
        content = encoded(radiograph())
        assert store_bytes(association, content) == status
        intake.fail_on_store = None
        assert store_bytes(association, content) == SUCCESS


def test_a_disk_that_fills_up_between_acceptance_and_storing_answers_0xa700(listen, store, intake):
    with association_with(listen()) as association:
        store.disk.low_water_mark_bytes = 1 << 60
        assert store_bytes(association, encoded(radiograph())) == 0xA700
    assert intake.of_kind("stored") == []


def test_a_dataset_that_is_not_the_instance_of_the_command_is_refused_and_quarantined(
    listen, store, intake
):
    content = encoded(radiograph(1))
    with association_with(listen()) as association:
        assert store_bytes(association, content, sop_instance_uid="2.25.999") == 0xA900
    assert intake.of_kind("stored") == []
    [evidence] = store.root.glob("quarantine/*.bin")
    assert evidence.read_bytes() == content


def test_a_class_that_is_not_the_contexts_is_refused(listen):
    contexts = [(DX, [ExplicitVRLittleEndian])]
    other = radiograph(sop_class=SecondaryCaptureImageStorage)
    with association_with(listen(), contexts=contexts) as association:
        status = store_bytes(
            association, encoded(other), sop_class_uid=str(SecondaryCaptureImageStorage)
        )
        assert status == 0xA900


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"this is no dataset at all, and odd in length", "StudyInstanceUID|parsed"),
        (encoded(radiograph())[:90], "StudyInstanceUID is missing"),
        (encoded(radiograph())[:105], "StudyInstanceUID is malformed"),
        (b"\x08\x00\x16\x00UI\xff\xff", "StudyInstanceUID is missing|parsed"),
    ],
    ids=["text", "cut before", "cut inside", "length beyond the end"],
)
def test_what_cannot_be_parsed_is_kept_and_reported_with_the_reason(
    listen, store, intake, content, problem
):
    with association_with(listen()) as association:
        assert store_bytes(association, content) == SUCCESS
    [instance] = intake.of_kind("stored")
    assert instance.study_uid is None
    assert any(part in instance.problem for part in problem.split("|")), instance.problem
    assert stored_bytes(store, instance) == content


@pytest.mark.parametrize("study_uid", ["", "no uid", "1" * 65, "1.2/../../etc", "..", "1..2"])
def test_a_malformed_study_uid_is_reported_as_none(listen, intake, study_uid):
    film = radiograph()
    film["StudyInstanceUID"]._value = study_uid
    with association_with(listen()) as association:
        assert store_bytes(association, encoded(film)) == SUCCESS
    [instance] = intake.of_kind("stored")
    assert instance.study_uid is None
    assert "StudyInstanceUID" in instance.problem


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3\\4", "1.2 3", "..", "1.2."])
def test_a_command_with_a_malformed_uid_gets_no_success(listen, intake, uid):
    with association_with(listen()) as association:
        assert store_bytes(association, encoded(radiograph()), sop_instance_uid=uid) != SUCCESS
    assert intake.of_kind("stored") == []


def test_an_object_beyond_the_limit_is_refused_for_good_and_the_next_one_is_taken(listen, intake):
    listener = listen(maximum_object_bytes=100_000, maximum_pdu_size=16384)
    with association_with(listener) as association:
        large = radiograph(side=512)
        assert store_bytes(association, encoded(large)) == 0xC000
        assert store_bytes(association, encoded(radiograph())) == SUCCESS
    assert len(intake.of_kind("stored")) == 1


def test_what_all_send_at_once_has_a_limit_and_who_finds_no_room_may_try_again(listen, intake):
    listener = listen(maximum_received_bytes=1_000_000, maximum_pdu_size=16384)
    film = encoded(radiograph(side=512))
    assert len(film) > 500_000
    with association_with(listener) as greedy, association_with(listener) as modest:
        store_all_but_the_end(greedy, film)
        # Sent at the same time, either of both could be the one that finds no room.
        deadline = time.monotonic() + 60
        while listener.received_bytes <= 1_000_000 - len(film):
            assert time.monotonic() < deadline, "the listener holds what the greedy one has sent"
            time.sleep(0.01)
        assert store_bytes(modest, film) == 0xA700
        assert store_bytes(modest, encoded(radiograph())) == SUCCESS, "a small one fits beside"
        greedy.abort()
        intake.wait_for("ended")
        assert store_bytes(modest, film) == SUCCESS, "what an aborted association held is free"
        assert [store_bytes(modest, film) for _ in range(4)] == [SUCCESS] * 4


def test_a_pdu_that_announces_more_than_the_limit_ends_the_association(listen, intake):
    listener = listen(maximum_object_bytes=100_000)
    with association_with(listener) as association:
        association.dul.socket.socket.sendall(b"\x04\x00\xff\xff\xff\xff" + bytes(100))
        assert intake.wait_for("ended") == [False]


def test_a_command_set_without_end_ends_the_association(listen, intake):
    with association_with(listen()) as association:
        fragment = b"\x01\x01" + bytes(8190)
        pdu = b"\x04\x00" + (len(fragment) + 4).to_bytes(4, "big")
        pdu += len(fragment).to_bytes(4, "big") + fragment
        for _ in range(20):
            try:
                association.dul.socket.socket.sendall(pdu)
            except OSError:
                break
        assert intake.wait_for("ended") == [False]


def test_stop_lets_an_open_association_finish(listen, intake):
    listener = listen()
    intake.hold_store = threading.Event()
    statuses = []
    with association_with(listener) as association:

        def send_and_release():
            statuses.append(store_bytes(association, encoded(radiograph())))
            association.release()

        sending = threading.Thread(target=send_and_release)
        sending.start()
        stopping = threading.Thread(target=listener.stop, args=(20,))
        stopping.start()
        intake.hold_store.set()
        stopping.join(20)
        sending.join(20)
    assert statuses == [SUCCESS]
    assert intake.of_kind("ended") == [True]


def test_stop_aborts_what_does_not_finish_and_tells_its_end(listen, intake):
    listener = listen()
    with association_with(listener):
        listener.stop(grace_seconds=0)
        assert intake.of_kind("ended") == [False]
    with pytest.raises(OSError):  # noqa: PT011 - refused, whatever the system calls it
        socket.create_connection(("127.0.0.1", listener.port or 1), timeout=1)


def test_a_port_in_use_is_a_setting_error_that_names_it(listen):
    port = listen().port
    with pytest.raises(SettingsError, match=str(port)):
        listen(port=port)


@pytest.mark.parametrize("title", ["", "   ", "A" * 17, "WÄRE"])
def test_an_impossible_ae_title_is_a_setting_error(title):
    with pytest.raises(SettingsError, match="AE title"):
        ListenerConfiguration(ae_title=title)


def test_a_network_that_is_none_is_a_setting_error():
    with pytest.raises(SettingsError, match=r"10\.0\.0\.300"):
        AllowedPeer("CT", ("10.0.0.300",))


def test_no_patient_data_is_logged(listen, intake, caplog):
    caplog.set_level(logging.DEBUG)
    listener = listen(maximum_object_bytes=1 << 20)
    with association_with(listener) as association:
        store_bytes(association, encoded(radiograph()))
        store_bytes(association, encoded(radiograph()), sop_instance_uid="2.25.999")
        store_bytes(association, b"Canary" * 100)
        intake.fail_on_store = ValueError("Canary^Patient")
        store_bytes(association, encoded(radiograph()))
    assert "Canary" not in caplog.text
