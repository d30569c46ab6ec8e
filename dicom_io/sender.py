"""The storage SCU: sends objects as they lie, in one association, and says what became of each."""

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_context

from dicom_io.delivery_status import Disposition, disposition_of
from dicom_io.errors import AssociationFailed, StorageError
from dicom_io.outgoing import (
    OutgoingObject,
    batches,
    contexts_for,
    decompressed,
    examine,
    named_alike,
)
from dicom_io.tls import TlsFiles, requestor_context
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = [
    "Disposition",
    "RemoteAE",
    "SendOutcome",
    "TlsFiles",
    "disposition_of",
    "echo",
    "send",
]

# Files go out as they lie on the disk; without this pynetdicom would decode and encode them anew.
_config.STORE_SEND_CHUNKED_DATASET = True

_VERIFICATION: Final = UID("1.2.840.10008.1.1")
_PERMANENT_REJECT: Final = 1  # PS3.8 table 9-21


@dataclass(frozen=True)
class RemoteAE:
    """A peer that objects are sent to.

    Attributes:
        ae_title: its AE title, which we call.
        host: its host name or address.
        port: its TCP port.
        calling_ae_title: our AE title, as this peer knows us.
        tls: files for TLS; None sends without.
        connection_timeout_seconds: time for the TCP connection and the TLS handshake.
        association_timeout_seconds: time for the answer to an association or release request.
        response_timeout_seconds: time for the answer to one object.
        network_timeout_seconds: longest wait for a peer that takes no data.
    """

    ae_title: str
    host: str
    port: int
    calling_ae_title: str = "MULTIMIX"
    tls: TlsFiles | None = None
    connection_timeout_seconds: float = 10.0
    association_timeout_seconds: float = 30.0
    response_timeout_seconds: float = 60.0
    network_timeout_seconds: float = 60.0

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


@dataclass(frozen=True)
class SendOutcome:
    """What became of one object.

    Attributes:
        sop_instance_uid: the object; empty if the file could not even be read.
        status: the peer's answer, (0000,0900); None if there was none.
        disposition: what that means.
        detail: what happened, in words, without patient data; may be empty.
    """

    sop_instance_uid: str
    status: int | None
    disposition: Disposition
    detail: str = ""


def send(objects: Iterable[Path | str | Dataset], remote: RemoteAE) -> list[SendOutcome]:
    """Send objects by C-STORE (PS3.4 annex B), in one association as far as contexts allow.

    Each goes out in the transfer syntax it is in, bit for bit if it is a file. Only where the peer
    does not take that syntax but an uncompressed one, it is decompressed first.

    Args:
        objects: paths of Part 10 files, or datasets with file meta information.
        remote: where to send them.

    Returns:
        One outcome for each object, in the same order.

    Raises:
        AssociationFailed: no association could be opened at all; nothing was sent.
        SettingsError: a TLS file cannot be used.
    """
    examined = [_examined(source) for source in objects]
    outgoing = [found for found in examined if isinstance(found, OutgoingObject)]
    answered = iter(_send_all(outgoing, remote))
    return [found if isinstance(found, SendOutcome) else next(answered) for found in examined]


def echo(remote: RemoteAE) -> None:
    """Ask a peer whether it is there, by C-ECHO (PS3.4 annex A).

    Args:
        remote: whom to ask.

    Raises:
        AssociationFailed: it is not there, refuses us, or does not answer with success.
        SettingsError: a TLS file cannot be used.
    """
    with _association(remote, [build_context(_VERIFICATION)]) as association:
        if not association.is_established:
            raise AssociationFailed(f"{remote} does not offer C-ECHO", transient=False)
        status = association.send_c_echo().get("Status")
    if status != 0x0000:
        answer = "did not answer" if status is None else f"answered 0x{status:04X} to"
        raise AssociationFailed(f"{remote} {answer} C-ECHO")


def _examined(source: Path | str | Dataset) -> OutgoingObject | SendOutcome:
    try:
        return examine(source)
    except StorageError as failure:
        return SendOutcome("", None, Disposition.REFUSED, str(failure))


def _send_all(outgoing: Sequence[OutgoingObject], remote: RemoteAE) -> list[SendOutcome]:
    outcomes: list[SendOutcome] = []
    for batch in batches(outgoing):
        try:
            with _association(remote, contexts_for(batch)) as association:
                outcomes += _send_batch(association, batch)
        except AssociationFailed as failure:
            if not outcomes:
                raise
            outcomes += [_unanswered(unsent, str(failure)) for unsent in batch]
    return outcomes


def _send_batch(association: Association, batch: Sequence[OutgoingObject]) -> list[SendOutcome]:
    """Send one object after the other; one without an answer means that the association is lost."""
    outcomes: list[SendOutcome] = []
    for outgoing in batch:
        if outcomes and outcomes[-1].disposition is Disposition.RETRY and not outcomes[-1].status:
            outcomes.append(_unanswered(outgoing, "the association was lost before"))
        else:
            outcomes.append(_send_one(association, outgoing))
    return outcomes


def _send_one(association: Association, outgoing: OutgoingObject) -> SendOutcome:
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == outgoing.sop_class_uid
    }
    if not accepted:
        return _refused(outgoing, Disposition.CONTEXT_REFUSED, "SOP class not accepted")
    source = outgoing.source
    if outgoing.transfer_syntax not in accepted:
        try:
            source = decompressed(outgoing)
        except Exception as cause:  # noqa: BLE001 - codecs raise whatever they like
            detail = f"transfer syntax not accepted, and not convertible ({type(cause).__name__})"
            return _refused(outgoing, Disposition.CONTEXT_REFUSED, detail)
    try:
        with named_alike(outgoing, source) as consistent:
            answer = association.send_c_store(consistent)
    except RuntimeError:
        return _unanswered(outgoing, "the association ended before the object was sent")
    except (ValueError, AttributeError, OSError) as cause:
        detail = f"the object cannot be encoded ({type(cause).__name__})"
        return _refused(outgoing, Disposition.REFUSED, detail)
    if "Status" not in answer:
        return _unanswered(outgoing, "the peer gave no answer")
    status = int(answer.Status)
    return SendOutcome(str(outgoing.sop_instance_uid), status, disposition_of(status))


def _unanswered(outgoing: OutgoingObject, detail: str) -> SendOutcome:
    return SendOutcome(str(outgoing.sop_instance_uid), None, Disposition.RETRY, detail)


def _refused(outgoing: OutgoingObject, disposition: Disposition, detail: str) -> SendOutcome:
    return SendOutcome(str(outgoing.sop_instance_uid), None, disposition, detail)


@contextmanager
def _association(remote: RemoteAE, contexts: list[PresentationContext]) -> Iterator[Association]:
    """An association that is accepted, though perhaps without any of the contexts.

    Raises:
        AssociationFailed: it was not accepted.
    """
    entity = ApplicationEntity(remote.calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = remote.connection_timeout_seconds
    entity.acse_timeout = remote.association_timeout_seconds
    entity.dimse_timeout = remote.response_timeout_seconds
    entity.network_timeout = remote.network_timeout_seconds
    tls_args = None if remote.tls is None else (requestor_context(remote.tls), remote.host)
    try:
        association = entity.associate(
            remote.host,
            remote.port,
            contexts=contexts,
            ae_title=remote.ae_title,
            tls_args=tls_args,
            evt_handlers=[(evt.EVT_CONN_OPEN, _tune_connection, [remote])],
        )
    except OSError as cause:
        raise AssociationFailed(f"{remote} is unknown to the network: {cause.strerror}") from cause
    nothing_accepted = bool(association.rejected_contexts) and not association.accepted_contexts
    if not association.is_established and not nothing_accepted:
        raise _failure_of(association, remote)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _tune_connection(event: evt.Event, remote: RemoteAE) -> None:
    """No waiting for more data before sending (Nagle), and no waiting for ever for a dead peer."""
    wire = event.assoc.dul.socket
    if wire is not None and wire.socket is not None:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.socket.settimeout(remote.network_timeout_seconds)


def _failure_of(association: Association, remote: RemoteAE) -> AssociationFailed:
    answer = association.acceptor.primitive
    if association.is_rejected and isinstance(answer, A_ASSOCIATE):
        transient = answer.result != _PERMANENT_REJECT
        return AssociationFailed(
            f"{remote} rejected the association: {answer.reason_str.lower()} "
            f"(we call ourselves {association.requestor.ae_title})",
            transient,
        )
    return AssociationFailed(f"{remote} cannot be reached, or gave no answer to the association")
