"""The storage SCU: sends objects as they lie, in one association, and says what became of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

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
from dicom_io.remote import RemoteAE, requested_association
from dicom_io.tls import TlsFiles

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
    with requested_association(remote, [build_context(_VERIFICATION)]) as association:
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
            with requested_association(remote, contexts_for(batch)) as association:
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
