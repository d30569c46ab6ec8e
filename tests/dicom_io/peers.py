"""The two sides that the listener and the sender are tested between, over real sockets."""

import queue
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE, N_ACTION
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import ThreadedAssociationServer

from dicom_io.access_control import AssociationFacts, Refusal
from dicom_io.intake import ReceivedInstance
from dicom_io.listener import Listener
from dicom_io.part10 import encode_dataset
from dicom_io.remote import RemoteAE
from dicom_io.storage_commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, REQUEST_COMMITMENT

DX = DigitalXRayImageStorageForPresentation
Answer = Callable[[evt.Event], int | Dataset]


def remote(port: int, **settings: Any) -> RemoteAE:
    """A peer on this machine as the sender knows it, with a short patience."""
    patience = {"connection_timeout_seconds": 5, "association_timeout_seconds": 5}
    return RemoteAE("PACS", "127.0.0.1", port, **patience | settings)


def radiograph(
    number: int = 1,
    *,
    study: int = 1,
    sop_class: UID = DX,
    transfer_syntax: UID = ExplicitVRLittleEndian,
    side: int = 64,
) -> Dataset:
    """A small uncompressed film; equal arguments give equal objects."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = transfer_syntax
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = sop_class
    film.SOPInstanceUID = UID(f"2.25.1{number:06d}")
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    film.PatientName = "Canary^Patient"
    film.StudyInstanceUID = UID(f"2.25.2{study:06d}")
    film.SeriesInstanceUID = UID(f"2.25.3{study:06d}")
    film.Modality = "DX"
    film.Rows = film.Columns = side
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    random = np.random.default_rng(number)
    film.PixelData = random.integers(0, 4096, (side, side), dtype=np.uint16).tobytes()
    film["PixelData"].VR = "OW"
    return film


def encoded(film: Dataset) -> bytes:
    """The dataset's bytes in its own transfer syntax."""
    return encode_dataset(film, film.file_meta.TransferSyntaxUID)


@dataclass
class RecordingIntake:
    """Keeps what it is told, and can be told to fail."""

    events: list[tuple[str, object]] = field(default_factory=list)
    fail_on_accept: Exception | None = None
    fail_on_store: Exception | None = None
    hold_store: threading.Event | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def association_accepted(self, association: AssociationFacts) -> None:
        if self.fail_on_accept is not None:
            raise self.fail_on_accept
        self._note("accepted", association)

    def instance_stored(self, association: AssociationFacts, instance: ReceivedInstance) -> None:
        if self.hold_store is not None:
            assert self.hold_store.wait(20)
        if self.fail_on_store is not None:
            raise self.fail_on_store
        self._note("stored", instance)

    def association_ended(self, association: AssociationFacts, released: bool) -> None:
        self._note("ended", released)

    def association_refused(self, association: AssociationFacts, reason: Refusal) -> None:
        self._note("refused", reason)

    def of_kind(self, kind: str) -> list:
        with self.changed:
            return [value for what, value in self.events if what == kind]

    def wait_for(self, kind: str, count: int = 1, seconds: float = 20) -> list:
        """What was told of a kind, once there is enough of it."""
        with self.changed:
            enough = self.changed.wait_for(
                lambda: sum(what == kind for what, _ in self.events) >= count, seconds
            )
            assert enough, f"{kind} was not told {count} times: {[w for w, _ in self.events]}"
        return self.of_kind(kind)

    def _note(self, kind: str, value: object) -> None:
        with self.changed:
            self.events.append((kind, value))
            self.changed.notify_all()


@contextmanager
def association_with(
    listener: Listener,
    *,
    contexts: list[tuple[UID, list[UID]]] | None = None,
    calling: str = "MODALITY",
    called: str = "MULTIMIX",
    **extra: object,
) -> Iterator[Association]:
    """An association of a pynetdicom modality with the listener, accepted or not."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for sop_class, syntaxes in contexts or [(DX, [ExplicitVRLittleEndian])]:
        entity.add_requested_context(sop_class, syntaxes)
    association = entity.associate("127.0.0.1", listener.port, ae_title=called, **extra)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def status_of_answer(association: Association, send: Callable[[], None]) -> int | None:
    """The status that a peer answers to what is sent; None if the association ends instead.

    The association's own thread takes whatever comes, and would now and then take an answer from
    a caller that waits for it as well; so it is asked to pass answers on.
    """
    answers: queue.Queue[C_STORE | N_ACTION] = queue.Queue()
    association._serve_request = lambda answer, _: answers.put(answer)  # type: ignore[method-assign]
    try:
        send()
        deadline = time.monotonic() + (association.dimse_timeout or 30)
        while time.monotonic() < deadline:
            try:
                return answers.get(timeout=0.05).Status
            except queue.Empty:
                if not association.is_established and answers.empty():
                    return None
        return None
    finally:
        del association._serve_request


def store_bytes(
    association: Association,
    dataset: bytes | None,
    *,
    sop_class_uid: str = str(DX),
    sop_instance_uid: str = "2.25.1000001",
    context_number: int = 0,
) -> int | None:
    """Send bytes by C-STORE as they are, under any name; the status, or None without an answer."""
    request = store_request(dataset, sop_class_uid, sop_instance_uid)
    context = association.accepted_contexts[context_number]
    return status_of_answer(
        association, lambda: association.dimse.send_msg(request, context.context_id)
    )


def store_request(
    dataset: bytes | None, sop_class_uid: str = str(DX), sop_instance_uid: str = "2.25.1000001"
) -> C_STORE:
    """A C-STORE request of any bytes under any name."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class_uid, sop_instance_uid
    request.DataSet = None if dataset is None else BytesIO(dataset)
    return request


def store_all_but_the_end(association: Association, dataset: bytes) -> None:
    """Send a C-STORE request without its last fragment; nobody waits for an answer."""
    message = C_STORE_RQ()
    message.primitive_to_message(store_request(dataset))
    context = association.accepted_contexts[0]
    *fragments, _ = message.encode_msg(context.context_id, association.acceptor.maximum_length)
    for fragment in fragments:
        pdu = P_DATA_TF()
        pdu.from_primitive(fragment)
        association.dul.socket.socket.sendall(pdu.encode())


def action_status(association: Association, information: bytes) -> int | None:
    """Ask for storage commitment by any bytes; the status, or None without an answer."""
    request = N_ACTION()
    request.MessageID, request.ActionTypeID = 1, REQUEST_COMMITMENT
    request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = PUSH_MODEL, PUSH_MODEL_INSTANCE
    request.ActionInformation = BytesIO(information)
    context = association.accepted_contexts[0]
    return status_of_answer(
        association, lambda: association.dimse.send_msg(request, context.context_id)
    )


@dataclass
class Received:
    """What a peer got: command UIDs, transfer syntax and bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    dataset: bytes


@dataclass
class StoragePeer:
    """A PACS that answers as it is told and keeps what it got."""

    port: int
    received: list[Received]
    accepted: list[evt.Event]


@contextmanager
def storage_peer(
    contexts: list[tuple[UID, list[UID]]],
    answer: Answer | None = None,
    *,
    entity: AE | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Iterator[StoragePeer]:
    """A pynetdicom storage SCP on a free port."""
    received: list[Received] = []
    accepted: list[evt.Event] = []

    def on_store(event: evt.Event) -> int | Dataset:
        request = event.request
        received.append(
            Received(
                str(request.AffectedSOPClassUID),
                str(request.AffectedSOPInstanceUID),
                str(event.context.transfer_syntax),
                event.encoded_dataset(include_meta=False),
            )
        )
        return 0x0000 if answer is None else answer(event)

    entity = entity or AE("PACS")
    for sop_class, syntaxes in contexts:
        entity.add_supported_context(sop_class, syntaxes)
    server = entity.make_server(
        ("127.0.0.1", 0),
        ssl_context=ssl_context,
        evt_handlers=[(evt.EVT_C_STORE, on_store), (evt.EVT_ACCEPTED, accepted.append)],
        server_class=ThreadedAssociationServer,
    )
    # pynetdicom's own thread looks for its end twice a second; tests are in a hurry.
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    try:
        yield StoragePeer(server.server_address[1], received, accepted)
    finally:
        socketserver.BaseServer.shutdown(server)
        server.server_close()
        serving.join()


def is_closed(connection: socket.socket) -> bool:
    """Whether the listener has closed a connection on which it has said nothing."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def connect(listener) -> socket.socket:
    """A bare connection, on which nothing has been said."""
    return socket.create_connection(("127.0.0.1", listener.port), timeout=20)
