import threading
import time
from dataclasses import dataclass, field

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_io.access_control import AllowedPeer
from dicom_io.commitment_service import (
    CommitmentService,
    report_commitment,
    request_commitment,
)
from dicom_io.errors import AssociationFailed
from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.part10 import encode_dataset
from dicom_io.remote import RemoteAE, requested_association
from dicom_io.sender import send
from dicom_io.storage import InstanceStore
from dicom_io.storage_commitment import (
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentRequest,
    CommitmentResult,
    DueReport,
    InstanceReference,
    dataset_of_request,
    dataset_of_result,
    event_type_of,
    request_from,
    result_from,
)
from dicom_io.tls import TlsFiles
from tests.dicom_io.peers import DX, RecordingIntake, action_status, radiograph
from tests.orthanc import running_orthanc

KEPT = InstanceReference(str(DX), "2.25.1000001")
LOST = InstanceReference(str(DX), "2.25.9")


@dataclass
class Register:
    """Knows what is safe, whom to report to, and what it was asked; due reports are never late."""

    kept: set[InstanceReference] = field(default_factory=lambda: {KEPT})
    address: RemoteAE | None = None
    failure: Exception | None = None
    full: bool = False
    reported_to_us: list[CommitmentResult] = field(default_factory=list)
    waiting: dict[int, tuple[str, CommitmentRequest]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    changed: threading.Event = field(default_factory=threading.Event)
    failed: threading.Event = field(default_factory=threading.Event)

    def take_request(self, association, request):
        if self.full:
            raise RuntimeError("full")
        self.waiting[len(self.waiting)] = (association.association_uid, request)

    def due_reports(self):
        return [
            DueReport(key, association_uid, request, self.address)
            for key, (association_uid, request) in list(self.waiting.items())
        ]

    def result_of(self, request):
        if self.failure is not None:
            raise self.failure
        return CommitmentResult(
            request.transaction_uid,
            tuple(r for r in request.references if r in self.kept),
            tuple((r, NO_SUCH_INSTANCE) for r in request.references if r not in self.kept),
        )

    def reported(self, report):
        del self.waiting[report.report_key]

    def not_reported(self, report, reason):
        self.problems.append(reason)
        self.failed.set()

    def commitment_reported(self, association, result):
        if self.failure is not None:
            raise self.failure
        self.reported_to_us.append(result)
        self.changed.set()


@pytest.fixture
def listen(tmp_path):
    running = []

    def start(register, **settings) -> Listener:
        service = CommitmentService(register, look_every_seconds=0.1)
        listener = Listener(
            ListenerConfiguration("MULTIMIX", **settings),
            InstanceStore(tmp_path / f"store{len(running)}"),
            RecordingIntake(),
            service,
        )
        service.start()
        listener.start()
        running.append((listener, service))
        return listener

    yield start
    for listener, service in running:
        service.stop()
        listener.stop(grace_seconds=0)


def remote(listener, **settings) -> RemoteAE:
    return RemoteAE("MULTIMIX", "127.0.0.1", listener.port, **settings)


def asked(*references) -> CommitmentRequest:
    return CommitmentRequest(generate_uid(), references)


def test_what_is_kept_is_committed_in_the_requestors_association(listen):
    request = asked(KEPT)
    result = request_commitment(request, remote(listen(Register())))
    assert result == CommitmentResult(request.transaction_uid, (KEPT,))


def test_what_is_not_kept_is_named_with_its_reason(listen):
    result = request_commitment(asked(KEPT, LOST), remote(listen(Register())))
    assert result is not None
    assert result.committed == (KEPT,)
    assert result.failed == ((LOST, NO_SUCH_INSTANCE),)


def test_the_result_comes_in_an_association_of_its_own_where_the_address_is_known(listen):
    asking = Register()
    asker = listen(asking)
    answering = listen(Register(address=remote(asker)))
    request = asked(KEPT)
    assert request_commitment(request, remote(answering), wait_seconds=0) is None
    assert asking.changed.wait(20)
    assert asking.reported_to_us == [CommitmentResult(request.transaction_uid, (KEPT,))]


def test_a_report_that_nobody_takes_is_tried_again(listen):
    asking = Register(failure=ConnectionError("the database is away"))
    asker = listen(asking)
    answering = Register(address=remote(asker))
    request_commitment(asked(KEPT), remote(listen(answering)), wait_seconds=0)
    assert answering.failed.wait(20)
    assert "did not take a storage commitment report" in answering.problems[0]
    asking.failure = None
    assert asking.changed.wait(20)


def test_a_report_that_a_missing_tls_file_stops_is_left_to_the_registers_pauses(listen, tmp_path):
    missing = tmp_path / "missing.pem"
    nobody = RemoteAE("PACS", "127.0.0.1", 1, tls=TlsFiles(missing, missing, missing))
    register = Register(address=nobody)
    request_commitment(asked(KEPT), remote(listen(register)), wait_seconds=0)
    assert register.failed.wait(20)
    assert "PACS at 127.0.0.1:1 cannot be called" in register.problems[0]
    assert "missing.pem" in register.problems[0]


def test_a_report_that_fails_in_an_unforeseen_way_is_left_to_the_registers_pauses(listen):
    register = Register(address=RemoteAE("A" * 99, "127.0.0.1", 1))
    request_commitment(asked(KEPT), remote(listen(register)), wait_seconds=0)
    assert register.failed.wait(20)
    assert "unforeseen ValueError" in register.problems[0]


def test_what_was_asked_before_a_restart_is_reported_after_it(listen):
    asking = Register()
    before = Register(address=RemoteAE("NOBODY", "127.0.0.1", 1, connection_timeout_seconds=1))
    request = asked(KEPT)
    request_commitment(request, remote(listen(before)), wait_seconds=0)
    assert before.failed.wait(20)
    before.address = remote(listen(asking))
    after = Register(address=before.address, waiting=dict(before.waiting))
    before.waiting.clear()
    listen(after)
    assert asking.changed.wait(20)
    assert asking.reported_to_us == [CommitmentResult(request.transaction_uid, (KEPT,))]


def test_a_requestor_that_left_without_a_known_address_cannot_be_told(listen):
    register = Register()
    request_commitment(asked(KEPT), remote(listen(register)), wait_seconds=0)
    assert register.failed.wait(20)
    assert "no port of it is known" in register.problems[0]


def test_a_register_that_is_full_refuses_for_the_time_being(listen):
    with pytest.raises(AssociationFailed, match="0x0213") as caught:
        request_commitment(asked(KEPT), remote(listen(Register(full=True))))
    assert caught.value.transient


def test_what_cannot_be_looked_up_is_not_called_safe(listen):
    result = request_commitment(asked(KEPT), remote(listen(Register(failure=OSError("disk")))))
    assert result is not None
    assert result.committed == ()
    assert result.failed == ((KEPT, PROCESSING_FAILURE),)


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i.__delattr__("TransactionUID"),
        lambda i: setattr(i, "TransactionUID", ""),
        lambda i: i.ReferencedSOPSequence[0].__delattr__("ReferencedSOPInstanceUID"),
    ],
)
def test_a_malformed_request_is_an_invalid_argument(listen, change):
    information = dataset_of_request(asked(KEPT))
    change(information)
    contexts = [build_context(PUSH_MODEL)]
    with requested_association(remote(listen(Register())), contexts) as association:
        answer, _ = association.send_n_action(information, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        assert answer.Status == 0x0115
        answer, _ = association.send_n_action(information, 7, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        assert answer.Status == 0x0123


def test_without_a_service_commitment_is_not_offered(tmp_path):
    plain = Listener(ListenerConfiguration("MULTIMIX"), InstanceStore(tmp_path), RecordingIntake())
    with plain, pytest.raises(AssociationFailed, match="offers no storage commitment") as caught:
        request_commitment(asked(KEPT), remote(plain))
    assert not caught.value.transient


def test_a_report_to_a_peer_that_is_away_fails():
    nobody = RemoteAE("NOBODY", "127.0.0.1", 1, connection_timeout_seconds=1)
    with pytest.raises(AssociationFailed):
        report_commitment(CommitmentResult(generate_uid(), (KEPT,)), nobody)


uids = st.from_regex(r"2\.25\.[1-9][0-9]{0,30}", fullmatch=True)
references = st.builds(InstanceReference, uids, uids)


@given(uids, st.lists(references, max_size=5), st.lists(references, max_size=5))
def test_requests_and_results_survive_the_way_into_datasets_and_back(uid, committed, failed):
    request = CommitmentRequest(uid, tuple(committed))
    assert request_from(dataset_of_request(request)) == request
    result = CommitmentResult(uid, tuple(committed), tuple((r, 0x0112) for r in failed))
    assert result_from(dataset_of_result(result)) == result
    assert event_type_of(result) == (2 if failed else 1)


def test_a_hostile_dataset_is_a_value_error():
    with pytest.raises(ValueError, match="TransactionUID"):
        result_from(Dataset())


@pytest.mark.interop
def test_orthanc_commits_to_what_it_was_sent_and_reports_to_our_listener(listen, tmp_path):
    register = Register()
    modalities = {"node": ["MULTIMIX", "127.0.0.1", listen(register).port]}
    with running_orthanc(tmp_path, DicomModalities=modalities) as pacs:
        target = RemoteAE(pacs.ae_title, "127.0.0.1", pacs.dicom_port, calling_ae_title="MULTIMIX")
        send([radiograph(1)], target)
        request = asked(KEPT, LOST)
        assert request_commitment(request, target, wait_seconds=0) is None
        assert register.changed.wait(20)
    [report] = register.reported_to_us
    assert report.transaction_uid == request.transaction_uid
    assert report.committed == (KEPT,)
    assert report.failed == ((LOST, NO_SUCH_INSTANCE),)


@pytest.mark.interop
def test_orthanc_asks_us_and_gets_our_report(listen, tmp_path):
    register = Register()
    modalities = {"node": ["MULTIMIX", "127.0.0.1", listen(register).port]}
    wanted = [[r.sop_class_uid, r.sop_instance_uid] for r in (KEPT, LOST)]
    with running_orthanc(tmp_path, DicomModalities=modalities) as pacs:
        register.address = RemoteAE(pacs.ae_title, "127.0.0.1", pacs.dicom_port)
        asked_for = requests.post(
            f"{pacs.url}/modalities/node/storage-commitment",
            json={"DicomInstances": wanted},
            timeout=20,
        ).json()
        report = finished_report(f"{pacs.url}/storage-commitment/{asked_for['ID']}")
    assert report["Status"] == "Failure"
    assert [item["SOPInstanceUID"] for item in report["Success"]] == [KEPT.sop_instance_uid]
    assert [item["SOPInstanceUID"] for item in report["Failures"]] == [LOST.sop_instance_uid]


def finished_report(url: str) -> dict:
    deadline = time.monotonic() + 20
    while True:
        report = requests.get(url, timeout=20).json()
        if report["Status"] != "Pending":
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.05)


def elsewhere() -> Register:
    """A register that never reports in the requestor's association, which may end at once."""
    return Register(address=RemoteAE("NOBODY", "127.0.0.1", 1, connection_timeout_seconds=1))


def request_sent(listener, information: bytes, syntax: UID, calling: str = "MODALITY") -> int:
    """Ask for commitment by any bytes; the status of the answer."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.add_requested_context(PUSH_MODEL, syntax)
    association = entity.associate("127.0.0.1", listener.port)
    assert association.is_established
    answer = action_status(association, information)
    association.release()
    return answer


def test_a_request_is_not_taken_deflated_since_a_few_bytes_may_stand_for_gigabytes(listen):
    entity = AE("MODALITY")
    entity.add_requested_context(PUSH_MODEL, [DeflatedExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", listen(Register()).port)
    assert not association.accepted_contexts
    association.abort()


@pytest.mark.parametrize(
    "information",
    [
        b"\x08\x00\x99\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 300_000,
        b"\x09\x00\x01\x10UN\0\0\x00\x00\x80\0" + bytes(8 << 20),
    ],
    ids=["300,000 empty items", "8 MiB of nothing"],
)
def test_a_request_that_would_cost_much_to_take_apart_is_refused_unseen(
    listen, monkeypatch, information
):
    taken_apart = []
    monkeypatch.setattr(
        "dicom_io.commitment_service.request_from", lambda found: taken_apart.append(found)
    )
    assert request_sent(listen(Register()), information, ExplicitVRLittleEndian) == 0x0115
    assert taken_apart == []


def test_a_request_for_as_many_instances_as_are_answered_is_taken(listen):
    register = elsewhere()
    references = [InstanceReference(str(DX), f"2.25.{10**40 + n}") for n in range(10_000)]
    information = encode_dataset(dataset_of_request(asked(*references)), ExplicitVRLittleEndian)
    assert request_sent(listen(register), information, ExplicitVRLittleEndian) == 0x0000


def test_who_may_not_send_may_not_ask_what_is_here(listen):
    peers = (AllowedPeer("PACS", may_send=False), AllowedPeer("CT1"))
    listener = listen(elsewhere(), allowed_calling=peers)
    information = encode_dataset(dataset_of_request(asked(KEPT)), ExplicitVRLittleEndian)
    for calling, status in (("PACS", 0x0124), ("CT1", 0x0000)):
        assert request_sent(listener, information, ExplicitVRLittleEndian, calling) == status
