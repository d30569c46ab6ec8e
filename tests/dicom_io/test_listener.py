import hashlib
import logging
import socket
import threading
import time
from contextlib import ExitStack

import pytest
from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom.sop_class import Verification

from dicom_io.access_control import AllowedPeer, Refusal
from dicom_io.errors import OutOfSpace, SettingsError
from dicom_io.instance_header import read_identifiers
from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.part10 import encode_dataset
from dicom_io.storage import InstanceStore
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES, decodable_transfer_syntaxes
from tests.dicom_io.peers import (
    DX,
    RecordingIntake,
    association_with,
    encoded,
    is_closed,
    radiograph,
    store_bytes,
)

SUCCESS = 0x0000


@pytest.fixture
def store(tmp_path):
    return InstanceStore(tmp_path / "store")


@pytest.fixture
def intake():
    return RecordingIntake()


@pytest.fixture
def listen(store, intake):
    """Start listeners with a test's own configuration; all are stopped at its end."""
    running = []

    def start(**configuration) -> Listener:
        listener = Listener(
            ListenerConfiguration(ae_title="MULTIMIX", **configuration), store, intake
        )
        listener.start()
        running.append(listener)
        return listener

    yield start
    for listener in running:
        listener.stop(grace_seconds=0)


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
        store.low_water_mark_bytes = 1 << 60
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


# --- who gets in -----------------------------------------------------------------------------


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
    store.low_water_mark_bytes = 1 << 60
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


# --- slow, silent and hostile peers ----------------------------------------------------------


def connect(listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), timeout=20)


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


# --- starting and stopping -------------------------------------------------------------------


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


# --- privacy and headers ---------------------------------------------------------------------


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
