"""Storage commitment over associations: answering peers' requests, and making requests of our own.

A request is answered at once; the instances are looked up afterwards, and the result is reported in
an association of our own where the requestor's address is known, else in the requestor's. A report
that no one takes is tried a few times; after that the requestor has to ask again, as it must be
able to anyway (PS3.4 J.3.2.1).
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_io.access_control import AssociationFacts
from dicom_io.errors import AssociationFailed
from dicom_io.remote import RemoteAE, requested_association
from dicom_io.storage_commitment import (
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_COMMITMENT,
    CommitmentRegister,
    CommitmentRequest,
    CommitmentResult,
    dataset_of_request,
    dataset_of_result,
    event_type_of,
    request_from,
    result_from,
)

_LOG = logging.getLogger(__name__)

_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_INVALID_ARGUMENT: Final = 0x0115
_NO_SUCH_ACTION: Final = 0x0123
_RESOURCE_LIMITATION: Final = 0x0213
_MOST_PENDING: Final = 100
_RESPONSE_GOES_FIRST_SECONDS: Final = 0.2
_SYNTAXES: Final[list[str | UID]] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]

Answer = tuple[int, Dataset | None]


class CommitmentService:
    """Storage commitment as provider, and as the one whom results are reported to.

    Args:
        register: who knows what is safe.
        pauses_seconds: waits before each attempt to report a result.
    """

    def __init__(
        self, register: CommitmentRegister, pauses_seconds: tuple[float, ...] = (0.0, 5.0, 60.0)
    ) -> None:
        self._register = register
        self._pauses_seconds = pauses_seconds
        self._reporting = ThreadPoolExecutor(2, thread_name_prefix="storage-commitment")
        self._pending = threading.BoundedSemaphore(_MOST_PENDING)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Report no more; what is being reported is waited for."""
        self._stopped.set()
        self._reporting.shutdown(wait=True, cancel_futures=True)

    def answer_request(self, event: evt.Event, association: AssociationFacts) -> Answer:
        """Answer an N-ACTION request; nothing but a status leaves.

        Args:
            event: the request.
            association: where it came in.

        Returns:
            The status, and no reply.
        """
        if event.action_type != REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION, None
        try:
            request = request_from(event.action_information)
        except Exception as cause:  # noqa: BLE001 - pydicom raises anything on a hostile dataset
            _LOG.warning("malformed storage commitment request: %s", type(cause).__name__)
            return _INVALID_ARGUMENT, None
        if self._stopped.is_set() or not self._pending.acquire(blocking=False):
            return _RESOURCE_LIMITATION, None
        self._reporting.submit(self._report, event.assoc, association, request)
        return _SUCCESS, None

    def take_report(self, event: evt.Event, association: AssociationFacts) -> Answer:
        """Take an N-EVENT-REPORT with the answer to a request of ours; only a status leaves."""
        try:
            self._register.commitment_reported(association, result_from(event.event_information))
        except ValueError:
            return _INVALID_ARGUMENT, None
        except Exception as cause:  # noqa: BLE001 - the fault may be ours; the peer may try again
            _LOG.error("a storage commitment report was not taken: %s", type(cause).__name__)
            return _PROCESSING_FAILURE, None
        return _SUCCESS, None

    def _report(
        self, asked_in: Association, association: AssociationFacts, request: CommitmentRequest
    ) -> None:
        """Find the result and bring it to the requestor; runs in a thread of its own."""
        try:
            result = self._result_of(association, request)
            for pause_seconds in self._pauses_seconds:
                if self._stopped.wait(pause_seconds):
                    return
                if self._reported(asked_in, association, result):
                    return
            _LOG.warning("storage commitment %s was not reported", request.transaction_uid)
        except Exception as cause:  # noqa: BLE001 - a thread of a pool has nobody to tell
            _LOG.error("storage commitment was not reported: %s", type(cause).__name__)
        finally:
            self._pending.release()

    def _result_of(
        self, association: AssociationFacts, request: CommitmentRequest
    ) -> CommitmentResult:
        try:
            return self._register.result_of(association, request)
        except Exception as cause:  # noqa: BLE001 - what is not found safe must not be called safe
            _LOG.error("storage commitment could not be decided: %s", type(cause).__name__)
            failed = tuple((reference, PROCESSING_FAILURE) for reference in request.references)
            return CommitmentResult(request.transaction_uid, (), failed)

    def _reported(
        self, asked_in: Association, association: AssociationFacts, result: CommitmentResult
    ) -> bool:
        remote = self._register.return_address(association)
        if remote is not None:
            try:
                report_commitment(result, remote)
            except AssociationFailed as failure:
                _LOG.warning("storage commitment is not reported yet: %s", failure)
                return False
            return True
        if self._stopped.wait(_RESPONSE_GOES_FIRST_SECONDS) or not asked_in.is_established:
            return False
        return _send_report(asked_in, result)


def report_commitment(result: CommitmentResult, remote: RemoteAE) -> None:
    """Report a result in an association of our own (PS3.4 J.3.3), in the role of the provider.

    Args:
        result: what to report.
        remote: the requestor.

    Raises:
        AssociationFailed: the requestor was not reached or did not take the report.
    """
    contexts = [build_context(PUSH_MODEL, _SYNTAXES)]
    roles = [build_role(PUSH_MODEL, scu_role=False, scp_role=True)]
    with requested_association(remote, contexts, roles=roles) as association:
        if not association.is_established or not _send_report(association, result):
            raise AssociationFailed(f"{remote} did not take a storage commitment report")


def request_commitment(
    request: CommitmentRequest, remote: RemoteAE, wait_seconds: float = 5.0
) -> CommitmentResult | None:
    """Ask a peer whether it keeps instances safe (PS3.4 J.3.2).

    Args:
        request: the question, under a transaction UID that was never used before.
        remote: whom to ask.
        wait_seconds: how long to wait for the report in the same association.

    Returns:
        The answer, or None if the peer will report later, in an association of its own.

    Raises:
        AssociationFailed: the peer was not reached or did not take the request.
    """
    reports: list[CommitmentResult] = []
    reported = threading.Event()

    def on_report(event: evt.Event) -> Answer:
        try:
            report = result_from(event.event_information)
        except Exception:  # noqa: BLE001 - pydicom raises anything on a hostile dataset
            return _INVALID_ARGUMENT, None
        if report.transaction_uid == request.transaction_uid:
            reports.append(report)
            reported.set()
        return _SUCCESS, None

    contexts = [build_context(PUSH_MODEL, _SYNTAXES)]
    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    with requested_association(remote, contexts, handlers=handlers) as association:
        if not association.is_established:
            raise AssociationFailed(f"{remote} offers no storage commitment", transient=False)
        information = dataset_of_request(request)
        answer, _ = association.send_n_action(
            information, REQUEST_COMMITMENT, PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
        status = answer.get("Status")
        if status != _SUCCESS:
            said = "gave no answer" if status is None else f"answered 0x{status:04X}"
            raise AssociationFailed(f"{remote} {said} to a storage commitment request")
        reported.wait(wait_seconds)
    return reports[0] if reports else None


def _send_report(association: Association, result: CommitmentResult) -> bool:
    try:
        answer, _ = association.send_n_event_report(
            dataset_of_result(result), event_type_of(result), PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
    except (RuntimeError, ValueError):
        return False
    return bool(answer.get("Status") == _SUCCESS)
