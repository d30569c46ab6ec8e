"""A study fetched from a DICOMweb service: QIDO-RS says what there is, WADO-RS gives it."""

import json
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus
from io import BytesIO
from typing import Final

import requests
from pydicom import dcmread

from dicom_io.dicomweb import DicomWebService, WebAnswer, ask, first_value, web_session
from dicom_io.errors import AssociationFailed, MultiMixError, StorageError
from dicom_io.instance_header import is_uid
from dicom_io.part10 import dataset_offset
from dicom_io.retrieval import Retrieval, RetrievedObject, Take
from dicom_io.transfer_syntaxes import SINGLE_IMAGE_STORAGE_CLASSES

_SOP_CLASS_UID: Final = "00080016"
_SOP_INSTANCE_UID: Final = "00080018"
_SERIES_UID: Final = "0020000E"
# As it is stored, in whatever transfer syntax that is (PS3.18 8.7.3.5.2).
_AS_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def list_study(service: DicomWebService, study_uid: str) -> frozenset[str]:
    """Which radiographs a service says that it has of a study: SOP Instance UIDs, by QIDO-RS.

    Raises:
        AssociationFailed: the service cannot be asked.
        MultiMixError: the UID is malformed.
    """
    _require_uid(study_uid)
    with web_session(service) as session:
        return frozenset(_instance_paths(session, service, study_uid))


def retrieve_study(service: DicomWebService, study_uid: str, take: Take) -> Retrieval:
    """Fetch the radiographs of a study, one after the other.

    Args:
        service: who has it.
        study_uid: which study.
        take: makes one object durable; an error of its own counts as a failure of that object.

    Returns:
        What came; nothing taken and nothing failed where the service knows no such study.

    Raises:
        AssociationFailed: the service cannot be asked, or broke off.
    """
    _require_uid(study_uid)
    taken, problems = 0, []
    with web_session(service) as session:
        for path in _instance_paths(session, service, study_uid).values():
            answer = ask(session, service, "GET", path, {"Accept": _AS_STORED})
            try:
                take(object_of(answer))
            except (MultiMixError, ValueError) as failure:
                if isinstance(failure, AssociationFailed):
                    raise
                problems.append(f"{path}: {failure}")
            else:
                taken += 1
    return Retrieval(taken, len(problems), problems[0] if problems else "")


def object_of(answer: WebAnswer) -> RetrievedObject:
    """The object in an answer to a request for one instance.

    Raises:
        StorageError: the service refused it, or gave something else.
    """
    if answer.status != HTTPStatus.OK:
        raise StorageError(f"the service answered HTTP {answer.status}")
    parts = list(parts_of(answer))
    if len(parts) != 1:
        raise StorageError(f"the service gave {len(parts)} objects instead of one")
    content = parts[0]
    try:
        head = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        return RetrievedObject(
            encoded_dataset=content[dataset_offset(content) :],
            transfer_syntax_uid=str(head.file_meta.TransferSyntaxUID),
            sop_class_uid=str(head.file_meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(head.file_meta.MediaStorageSOPInstanceUID),
        )
    except Exception as cause:  # pydicom raises whatever it likes, with values in the text
        raise StorageError(
            f"the service gave something that is no DICOM file ({type(cause).__name__})"
        ) from cause


def parts_of(answer: WebAnswer) -> Iterator[bytes]:
    """The bodies of a multipart answer (RFC 2046 5.1.1); one body where it is no multipart."""
    header = Message()
    header["Content-Type"] = answer.content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or header.get_content_maintype() != "multipart":
        yield answer.body
        return
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    # The first delimiter may begin the body without the line end that is part of the others.
    sections = (b"\r\n" + answer.body).split(delimiter)[1:]
    for section in sections:
        if section.startswith(b"--"):
            return
        _, separator, body = section.partition(b"\r\n\r\n")
        if separator:
            yield body


def _require_uid(study_uid: str) -> None:
    if not is_uid(study_uid):
        raise MultiMixError("a Study Instance UID has digits and dots, at most 64 of them")


def _instance_paths(
    session: requests.Session, service: DicomWebService, study_uid: str
) -> dict[str, str]:
    """Paths of a study's radiographs by SOP Instance UID, by QIDO-RS (PS3.18 10.6)."""
    answer = ask(
        session,
        service,
        "GET",
        f"/studies/{study_uid}/instances",
        {"Accept": "application/dicom+json"},
    )
    if answer.status == HTTPStatus.NO_CONTENT:
        return {}
    try:
        items = json.loads(answer.body) if answer.status == HTTPStatus.OK else None
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list):
        raise AssociationFailed(
            f"{service} cannot list a study (HTTP {answer.status})", transient=False
        )
    paths = {}
    for item in items:
        sop_class_uid, series_uid, instance_uid = (
            first_value(item, tag) for tag in (_SOP_CLASS_UID, _SERIES_UID, _SOP_INSTANCE_UID)
        )
        wanted = not sop_class_uid or sop_class_uid in SINGLE_IMAGE_STORAGE_CLASSES
        if wanted and is_uid(series_uid) and is_uid(instance_uid):
            paths[instance_uid] = (
                f"/studies/{study_uid}/series/{series_uid}/instances/{instance_uid}"
            )
    return paths
