"""The answer to a C-STORE request: bytes checked, made durable, reported, and only then success.

Whatever fails on our side is answered with 0xA700, so that the sender tries again; what is wrong
with the object itself, with a final status. The dataset is never decoded here; only the UIDs in its
head are read.
"""

import logging
from typing import Final, cast

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE

from dicom_io.access_control import AssociationFacts
from dicom_io.bounded_buffer import BoundedBuffer
from dicom_io.instance_header import InstanceIdentifiers, is_uid, read_identifiers
from dicom_io.intake import Intake, ReceivedInstance
from dicom_io.storage import InstanceStore

_LOG = logging.getLogger(__name__)

# Status codes of C-STORE (PS3.4 table B.2-1, PS3.7 annex C).
SUCCESS: Final = 0x0000
INVALID_SOP_INSTANCE: Final = 0x0117
OUT_OF_RESOURCES: Final = 0xA700
DATASET_DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000


class StorageService:
    """The storage service class as provider (PS3.4 B.2).

    Args:
        store: where instances go.
        intake: who is told of each before success is answered.
    """

    def __init__(self, store: InstanceStore, intake: Intake) -> None:
        self._store = store
        self._intake = intake

    def answer(self, event: evt.Event, association: AssociationFacts) -> Dataset:
        """Answer one C-STORE request; nothing but a status leaves, whatever happens.

        Args:
            event: the request and its presentation context.
            association: where it came in.

        Returns:
            The status, with an Error Comment where it is none of success.
        """
        try:
            return self._store_instance(event, association)
        except Exception as cause:  # noqa: BLE001 - the fault is ours; the sender keeps its copy
            _LOG.error("an instance could not be taken: %s", type(cause).__name__)
            return _status(OUT_OF_RESOURCES, "not stored, try again later")

    def _store_instance(self, event: evt.Event, association: AssociationFacts) -> Dataset:
        request = cast(C_STORE, event.request)
        sop_class_uid = str(request.AffectedSOPClassUID)
        sop_instance_uid = str(request.AffectedSOPInstanceUID)
        if not is_uid(sop_instance_uid) or not is_uid(sop_class_uid):
            return _status(INVALID_SOP_INSTANCE, "malformed SOP Class or Instance UID")
        buffer = request.DataSet
        if isinstance(buffer, BoundedBuffer) and buffer.found_no_room:
            return _status(OUT_OF_RESOURCES, "too much comes at once, try again later")
        if buffer is None or (isinstance(buffer, BoundedBuffer) and buffer.is_too_long):
            return _status(CANNOT_UNDERSTAND, "no dataset, or longer than this node takes")
        encoded = buffer.getvalue()
        identifiers = read_identifiers(encoded, str(event.context.transfer_syntax))
        if sop_class_uid != event.context.abstract_syntax or _differ(
            (identifiers.sop_class_uid, sop_class_uid),
            (identifiers.sop_instance_uid, sop_instance_uid),
        ):
            self._store.quarantine.put(encoded, "the dataset is not the instance of the command")
            return _status(DATASET_DOES_NOT_MATCH, "SOP UIDs of dataset and command differ")
        instance = keep_instance(
            self._store,
            encoded,
            identifiers,
            transfer_syntax_uid=str(event.context.transfer_syntax),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
        )
        self._intake.instance_stored(association, instance)
        return _status(SUCCESS)


def keep_instance(
    store: InstanceStore,
    encoded_dataset: bytes,
    identifiers: InstanceIdentifiers,
    *,
    transfer_syntax_uid: str,
    sop_class_uid: str,
    sop_instance_uid: str,
) -> ReceivedInstance:
    """Make an instance durable, however it came.

    Args:
        store: where it goes.
        encoded_dataset: without file meta information, as it came.
        identifiers: what its head says.
        transfer_syntax_uid: how it is encoded.
        sop_class_uid: what its sender calls it.
        sop_instance_uid: likewise.

    Raises:
        StorageError: it could not be made durable.
    """
    stored = store.keep(
        encoded_dataset,
        transfer_syntax_uid=transfer_syntax_uid,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
    )
    return ReceivedInstance(
        stored=stored,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        study_uid=identifiers.study_uid,
        series_uid=identifiers.series_uid,
        problem=identifiers.problem,
    )


def _differ(*pairs: tuple[str | None, str]) -> bool:
    """Whether any UID that the dataset names is another than the command's."""
    return any(found is not None and found != expected for found, expected in pairs)


def _status(code: int, comment: str = "") -> Dataset:
    """A status with an Error Comment (LO, 64 characters; PS3.7 table C)."""
    status = Dataset()
    status.Status = code
    if comment:
        status.ErrorComment = comment[:64]
    return status
