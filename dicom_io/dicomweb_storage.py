"""STOW-RS (PS3.18 10.5): sends objects as they lie to a DICOMweb service, one request for each."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import requests

from dicom_io.delivery_status import Disposition, disposition_of
from dicom_io.dicomweb import DicomWebService, WebAnswer, ask, first_value, web_session
from dicom_io.errors import AssociationFailed, StorageError
from dicom_io.outgoing import examine
from dicom_io.sender import SendOutcome

_DICOM_JSON: Final = "application/dicom+json"
# Keywords of the Store Instances Response Module (PS3.18 table I.2-1) as they stand in DICOM JSON.
_FAILED_SOP_SEQUENCE: Final = "00081198"
_REFERENCED_SOP_SEQUENCE: Final = "00081199"
_REFERENCED_SOP_INSTANCE_UID: Final = "00081155"
_FAILURE_REASON: Final = "00081197"
_WARNING_REASON: Final = "00081196"
_TRANSFER_SYNTAX_NOT_SUPPORTED: Final = 0xC122


@dataclass(frozen=True)
class _Part10File:
    sop_instance_uid: str
    content: bytes


def store(paths: Sequence[Path], service: DicomWebService) -> list[SendOutcome]:
    """Send Part 10 files, byte for byte; the counterpart of ``dicom_io.sender.send``.

    Args:
        paths: the files.
        service: where to send them.

    Returns:
        One outcome for each file, in the same order; where the service says why it refused an
        object, by the same table as for C-STORE.

    Raises:
        AssociationFailed: the service could not be asked at all; nothing was sent.
    """
    outcomes: list[SendOutcome] = []
    lost = ""
    with web_session(service) as session:
        for path in paths:
            file = _read(path)
            if isinstance(file, SendOutcome):
                outcomes.append(file)
            elif lost:
                outcomes.append(_unanswered(file, lost))
            else:
                try:
                    outcomes.append(_store_one(session, service, file))
                except AssociationFailed as failure:
                    if not any(outcome.sop_instance_uid for outcome in outcomes):
                        raise
                    lost = str(failure)
                    outcomes.append(_unanswered(file, lost))
    return outcomes


def _read(path: Path) -> _Part10File | SendOutcome:
    try:
        return _Part10File(str(examine(path).sop_instance_uid), path.read_bytes())
    except (StorageError, OSError) as failure:
        detail = str(failure) if isinstance(failure, StorageError) else type(failure).__name__
        return SendOutcome("", None, Disposition.REFUSED, detail)


def _store_one(
    session: requests.Session, service: DicomWebService, file: _Part10File
) -> SendOutcome:
    boundary = uuid.uuid4().hex
    body = b"".join(
        (
            f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
            file.content,
            f"\r\n--{boundary}--\r\n".encode(),
        )
    )
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": _DICOM_JSON,
    }
    return outcome_of(ask(session, service, "POST", "/studies", headers, body), file)


def outcome_of(answer: WebAnswer, file: _Part10File) -> SendOutcome:
    """What an answer to a Store transaction says of one object (PS3.18 10.5.3 and I.2)."""
    uid = file.sop_instance_uid
    response = _response_dataset(answer)
    failure = _item_about(uid, response, _FAILED_SOP_SEQUENCE)
    if failure is not None:
        return _refusal(uid, _number(failure, _FAILURE_REASON), answer.status)
    stored = _item_about(uid, response, _REFERENCED_SOP_SEQUENCE)
    if stored is not None and _number(stored, _WARNING_REASON) is not None:
        warning = _number(stored, _WARNING_REASON)
        return SendOutcome(uid, warning, Disposition.DELIVERED_WITH_WARNING)
    if stored is not None or answer.status in (HTTPStatus.OK, HTTPStatus.CREATED):
        return SendOutcome(uid, 0x0000, Disposition.DELIVERED)
    if answer.status == HTTPStatus.ACCEPTED:
        detail = "HTTP 202 without a word about the object"
        return SendOutcome(uid, None, Disposition.DELIVERED_WITH_WARNING, detail)
    kind = (
        Disposition.CONTEXT_REFUSED
        if answer.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        else Disposition.REFUSED
    )
    return SendOutcome(uid, None, kind, f"HTTP {answer.status}")


def _refusal(uid: str, reason: int | None, http_status: int) -> SendOutcome:
    if reason is None:
        return SendOutcome(uid, None, Disposition.REFUSED, f"HTTP {http_status}, without a reason")
    kind = disposition_of(reason)
    if reason == _TRANSFER_SYNTAX_NOT_SUPPORTED:
        kind = Disposition.CONTEXT_REFUSED
    if kind in (Disposition.DELIVERED, Disposition.DELIVERED_WITH_WARNING):
        # Listed as failed, whatever the number says; 0x0111 alone means that it is there already.
        already_there = reason == 0x0111
        kind = Disposition.DELIVERED_WITH_WARNING if already_there else Disposition.REFUSED
    return SendOutcome(uid, reason, kind)


def _response_dataset(answer: WebAnswer) -> dict[str, Any]:
    """The Store Instances Response Module in DICOM JSON; empty where the service gave none."""
    if "json" not in answer.content_type.lower():
        return {}
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    return found if isinstance(found, dict) else {}


def _item_about(uid: str, response: dict[str, Any], sequence_tag: str) -> Any:
    """The item of a sequence that names an instance, or None."""
    element = response.get(sequence_tag)
    items = element.get("Value") if isinstance(element, dict) else None
    for item in items if isinstance(items, list) else []:
        if first_value(item, _REFERENCED_SOP_INSTANCE_UID) == uid:
            return item
    return None


def _number(item: Any, tag: str) -> int | None:
    value = first_value(item, tag)
    return value if isinstance(value, int) else None


def _unanswered(file: _Part10File, detail: str) -> SendOutcome:
    return SendOutcome(file.sop_instance_uid, None, Disposition.RETRY, detail)
