"""A study fetched from a remote AE: C-GET to us, or C-MOVE to a listener (PS3.4 annex C)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_io.errors import AssociationFailed, MultiMixError
from dicom_io.remote import RemoteAE, requested_association
from dicom_io.transfer_syntaxes import SINGLE_IMAGE_STORAGE_CLASSES, decodable_transfer_syntaxes

_SUCCESS: Final = 0x0000
_OUT_OF_RESOURCES: Final = 0xA700
_PENDING: Final = frozenset({0xFF00, 0xFF01})


@dataclass(frozen=True)
class RetrievedObject:
    """An object as it came from a peer that we asked for it.

    Attributes:
        encoded_dataset: without file meta information, bit for bit.
        transfer_syntax_uid: how it is encoded.
        sop_class_uid: what the peer calls it.
        sop_instance_uid: likewise.
    """

    encoded_dataset: bytes
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str


Take = Callable[[RetrievedObject], None]


@dataclass(frozen=True)
class Retrieval:
    """What came of fetching a study.

    Attributes:
        taken: objects that came, and are durable where it was us who took them.
        failed: objects that did not.
        problem: what the first failure was, in words; empty without any.
    """

    taken: int
    failed: int = 0
    problem: str = ""


def list_instances(remote: RemoteAE, study_uid: str) -> frozenset[str] | None:
    """Which radiographs a peer says that it has of a study, by C-FIND at image level.

    Returns:
        SOP Instance UIDs in the storage classes that are fetched; None where the peer takes no such
        query.

    Raises:
        AssociationFailed: the peer cannot be asked.
    """
    model = StudyRootQueryRetrieveInformationModelFind
    query = _study_query(study_uid, "IMAGE")
    query.SOPInstanceUID = query.SeriesInstanceUID = query.SOPClassUID = ""
    found: set[str] = set()
    with requested_association(remote, [build_context(model)]) as association:
        if not association.accepted_contexts:
            return None
        for status, identifier in association.send_c_find(query, model):
            code = status.get("Status")
            if code not in _PENDING:
                return frozenset(found) if code == _SUCCESS else None
            if identifier is not None and _is_fetched(identifier):
                found.add(str(identifier.get("SOPInstanceUID")))
    raise AssociationFailed(f"{remote} broke off while it was asked for a study")


def get_study(remote: RemoteAE, study_uid: str, take: Take) -> Retrieval:
    """Fetch the radiographs of a study by C-GET (PS3.4 C.4.3).

    Args:
        remote: who has it.
        study_uid: which study.
        take: makes one object durable; its errors are told to the peer as a failed sub-operation.

    Raises:
        AssociationFailed: the peer cannot be reached, does not offer C-GET, or broke off.
    """
    refusals: list[str] = []

    def answer(event: evt.Event) -> int:
        request = cast(C_STORE, event.request)
        try:
            if request.DataSet is None:
                raise MultiMixError("an object came without a dataset")
            take(
                RetrievedObject(
                    encoded_dataset=request.DataSet.getvalue(),
                    transfer_syntax_uid=str(event.context.transfer_syntax),
                    sop_class_uid=str(request.AffectedSOPClassUID),
                    sop_instance_uid=str(request.AffectedSOPInstanceUID),
                )
            )
        except MultiMixError as failure:
            refusals.append(str(failure))
            return _OUT_OF_RESOURCES
        except Exception as failure:  # noqa: BLE001 - the peer must be told, whatever it was
            refusals.append(f"internal: {type(failure).__name__}")
            return _OUT_OF_RESOURCES
        return _SUCCESS

    model = StudyRootQueryRetrieveInformationModelGet
    roles = [build_role(uid, scp_role=True) for uid in SINGLE_IMAGE_STORAGE_CLASSES]
    with requested_association(
        remote,
        [build_context(model), *_storage_contexts()],
        roles=roles,
        handlers=[(evt.EVT_C_STORE, answer)],
    ) as association:
        _require_context(association, remote, model, "C-GET")
        responses = association.send_c_get(_study_query(study_uid, "STUDY"), model)
        return _outcome([status for status, _ in responses], remote, refusals)


def move_study(remote: RemoteAE, study_uid: str, destination_ae_title: str) -> Retrieval:
    """Have a peer send the radiographs of a study to a listener by C-MOVE (PS3.4 C.4.2).

    Args:
        remote: who has it.
        study_uid: which study.
        destination_ae_title: AE title of the listener, as the peer knows it.

    Raises:
        AssociationFailed: the peer cannot be reached, does not offer C-MOVE, or broke off.
    """
    model = StudyRootQueryRetrieveInformationModelMove
    with requested_association(remote, [build_context(model)]) as association:
        _require_context(association, remote, model, "C-MOVE")
        query = _study_query(study_uid, "STUDY")
        responses = association.send_c_move(query, destination_ae_title, model)
        return _outcome([status for status, _ in responses], remote, [])


def _study_query(study_uid: str, level: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID = study_uid
    return query


def _is_fetched(identifier: Dataset) -> bool:
    """Peers may leave the SOP class out of their answer; then it may be a radiograph."""
    sop_class_uid = str(identifier.get("SOPClassUID") or "")
    return not sop_class_uid or sop_class_uid in SINGLE_IMAGE_STORAGE_CLASSES


def _storage_contexts() -> list[PresentationContext]:
    """One context for each class and syntax, so that the peer sends each object as it has it."""
    return [
        build_context(storage_class, syntax)
        for storage_class in SINGLE_IMAGE_STORAGE_CLASSES
        for syntax in decodable_transfer_syntaxes()
    ]


def _require_context(association: Association, remote: RemoteAE, model: UID, service: str) -> None:
    if not any(context.abstract_syntax == model for context in association.accepted_contexts):
        raise AssociationFailed(f"{remote} does not offer {service} to us", transient=False)


def _outcome(statuses: list[Dataset], remote: RemoteAE, refusals: list[str]) -> Retrieval:
    """What the last response says (PS3.4 tables C.4-2 and C.4-3)."""
    last = statuses[-1] if statuses else Dataset()
    if "Status" not in last or last.Status in _PENDING:
        raise AssociationFailed(f"{remote} broke off while it sent a study")
    completed = int(last.get("NumberOfCompletedSuboperations") or 0)
    completed += int(last.get("NumberOfWarningSuboperations") or 0)
    failed = int(last.get("NumberOfFailedSuboperations") or 0)
    problem = refusals[0] if refusals else ""
    if last.Status != _SUCCESS and not problem:
        problem = f"{remote} ended with status 0x{last.Status:04X}"
    return Retrieval(completed, max(failed, len(refusals)), problem)
