"""A PACS that stores and commits over real sockets, as a test tells it to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicom_io.commitment_service import report_commitment
from dicom_io.remote import RemoteAE
from dicom_io.storage_commitment import (
    NO_SUCH_INSTANCE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentRequest,
    CommitmentResult,
    dataset_of_result,
    event_type_of,
    request_from,
)
from dicom_io.uids import STORAGE_CLASSES
from worker.addresses import Target

_RESPONSE_GOES_FIRST_SECONDS = 0.2


class CommittingScp:
    """What it got and was asked, and what it does not commit to."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.asked: list[CommitmentRequest] = []
        self.uncommitted: set[str] = set()
        self.reports = True
        self.reports_to: RemoteAE | None = None
        self._reporting: list[threading.Thread] = []

    @contextmanager
    def running(self, offers_commitment: bool = True) -> Iterator[Target]:
        entity = AE("PACS")
        for kind in STORAGE_CLASSES.values():
            entity.add_supported_context(kind)
        if offers_commitment:
            entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._asked)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        port = server.socket.getsockname()[1]
        try:
            yield Target(name="PACS", ae_title="PACS", host="127.0.0.1", port=port, commit=True)
        finally:
            for thread in self._reporting:
                thread.join()
            server.shutdown()

    def result_of(self, request: CommitmentRequest) -> CommitmentResult:
        """What it commits to of what it was asked for."""
        kept = [ref for ref in request.references if ref.sop_instance_uid not in self.uncommitted]
        lost = [ref for ref in request.references if ref not in kept]
        failed = tuple((ref, NO_SUCH_INSTANCE) for ref in lost)
        return CommitmentResult(request.transaction_uid, tuple(kept), failed)

    def _store(self, event: evt.Event) -> int:
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _asked(self, event: evt.Event) -> tuple[int, Dataset | None]:
        request = request_from(event.action_information)
        self.asked.append(request)
        if self.reports:
            thread = threading.Thread(target=self._report, args=(event, request))
            self._reporting.append(thread)
            thread.start()
        return 0x0000, None

    def _report(self, event: evt.Event, request: CommitmentRequest) -> None:
        result = self.result_of(request)
        if self.reports_to is not None:
            report_commitment(result, self.reports_to)
            return
        threading.Event().wait(_RESPONSE_GOES_FIRST_SECONDS)
        event.assoc.send_n_event_report(
            dataset_of_result(result), event_type_of(result), PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
