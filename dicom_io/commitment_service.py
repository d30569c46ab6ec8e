"""Storage commitment over associations: answering peers' requests, and making requests of our own.

A request is remembered in the register before it is answered with success. Its result is looked up
and reported afterwards, in an association of our own where the requestor's address is known, else
in the requestor's (PS3.4 J.3.3). What could not be reported stays in the register, which says when
it is tried again, also after a restart.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, cast
from weakref import WeakValueDictionary

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.presentation import build_context

from dicom_io.access_control import AssociationFacts
from dicom_io.errors import AssociationFailed, SettingsError
from dicom_io.remote import RemoteAE, requested_association
from dicom_io.storage_commitment import (
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_COMMITMENT,
    CommitmentRegister,
    CommitmentRequest,
    CommitmentResult,
    DueReport,
    dataset_of_request,
    dataset_of_result,
    event_type_of,
    request_from,
    require_sane_size,
    result_from,
)

_LOG = logging.getLogger(__name__)

_SUCCESS: Final = 0x0000
_PROCESSING_FAILURE: Final = 0x0110
_INVALID_ARGUMENT: Final = 0x0115
_NO_SUCH_ACTION: Final = 0x0123
_NOT_AUTHORIZED: Final = 0x0124
_RESOURCE_LIMITATION: Final = 0x0213
_REPORTS_AT_A_TIME: Final = 4
_RESPONSE_GOES_FIRST_SECONDS: Final = 0.2
# Not deflated: pynetdicom would inflate whatever a few bytes stand for.
COMMITMENT_SYNTAXES: Final[list[str | UID]] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]

Answer = tuple[int, Dataset | None]


class CommitmentService:
    """Storage commitment as provider, and as the one whom results are reported to.

    Args:
        register: who knows what is safe, and remembers what has to be reported.
        look_every_seconds: pause before the register is asked again what is due.
    """

    def __init__(self, register: CommitmentRegister, look_every_seconds: float = 1.0) -> None:
        self._register = register
        self._look_every_seconds = look_every_seconds
        self._asked_in: WeakValueDictionary[str, Association] = WeakValueDictionary()
        self._under_way: set[int] = set()
        self._lock = threading.Lock()
        self._something_came = threading.Event()
        self._stopped = threading.Event()
        self._reporting = ThreadPoolExecutor(_REPORTS_AT_A_TIME, thread_name_prefix="commitment")
        self._looking = threading.Thread(target=self._look, name="commitment", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Report what is due from now on, in threads of its own."""
        self._looking.start()

    def stop(self) -> None:
        """Report no more; what is being reported is waited for."""
        self._stopped.set()
        self._something_came.set()
        if self._looking.is_alive():
            self._looking.join()
        self._reporting.shutdown(wait=True, cancel_futures=True)

    def answer_request(
        self, event: evt.Event, association: AssociationFacts, *, may_ask: bool = True
    ) -> Answer:
        """Answer an N-ACTION request; nothing but a status leaves.

        Args:
            event: the request.
            association: where it came in.
            may_ask: whether the requestor has the right to; who may send nothing has not.

        Returns:
            The status, and no reply.
        """
        if event.action_type != REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION, None
        if not may_ask:
            return _NOT_AUTHORIZED, None
        try:
            require_sane_size(cast(N_ACTION, event.request).ActionInformation)
            request = request_from(event.action_information)
        except Exception as cause:  # noqa: BLE001 - pydicom raises anything on a hostile dataset
            _LOG.warning("malformed storage commitment request: %s", type(cause).__name__)
            return _INVALID_ARGUMENT, None
        try:
            self._register.take_request(association, request)
        except Exception as cause:  # noqa: BLE001 - the fault may be ours; the peer may ask again
            _LOG.warning("a storage commitment request is not taken: %s", type(cause).__name__)
            return _RESOURCE_LIMITATION, None
        self._asked_in[association.association_uid] = event.assoc
        self._something_came.set()
        return _SUCCESS, None

    def take_report(self, event: evt.Event, association: AssociationFacts) -> Answer:
        """Take an N-EVENT-REPORT with the answer to a request of ours; only a status leaves."""
        try:
            require_sane_size(cast(N_EVENT_REPORT, event.request).EventInformation)
            result = result_from(event.event_information)
        except Exception as cause:  # noqa: BLE001 - pydicom raises anything on a hostile dataset
            _LOG.warning("malformed storage commitment report: %s", type(cause).__name__)
            return _INVALID_ARGUMENT, None
        try:
            self._register.commitment_reported(association, result)
        except ValueError as cause:
            _LOG.warning("a storage commitment report is refused: %s", cause)
            return _INVALID_ARGUMENT, None
        except Exception as cause:  # noqa: BLE001 - the fault may be ours; the peer may try again
            _LOG.error("a storage commitment report was not taken: %s", type(cause).__name__)
            return _PROCESSING_FAILURE, None
        return _SUCCESS, None

    def _look(self) -> None:
        """Start what is due, again and again; runs in a thread of its own."""
        failing = False
        while not self._stopped.is_set():
            self._something_came.clear()
            try:
                due = self._register.due_reports()
            except Exception as cause:  # noqa: BLE001 - the register may be away for a while
                if not failing:
                    _LOG.warning("storage commitment has to wait: %s", type(cause).__name__)
                failing = True
            else:
                failing = False
                for report in due:
                    self._start_report(report)
            self._something_came.wait(self._look_every_seconds)

    def _start_report(self, report: DueReport) -> None:
        with self._lock:
            if report.report_key in self._under_way or self._stopped.is_set():
                return
            self._under_way.add(report.report_key)
        self._reporting.submit(self._report, report)

    def _report(self, report: DueReport) -> None:
        """Find the result and bring it to the requestor; runs in a thread of the pool."""
        try:
            try:
                problem = self._problem_of_reporting(report, self._result_of(report.request))
            except Exception as cause:  # noqa: BLE001 - else it is due again at once, for ever
                problem = f"an unforeseen {type(cause).__name__} came up"
            if problem is None:
                self._register.reported(report)
            elif not self._stopped.is_set():
                self._register.not_reported(report, problem)
        except Exception as cause:  # noqa: BLE001 - a thread of a pool has nobody to tell
            _LOG.error("storage commitment was not reported: %s", type(cause).__name__)
        finally:
            with self._lock:
                self._under_way.discard(report.report_key)

    def _result_of(self, request: CommitmentRequest) -> CommitmentResult:
        try:
            return self._register.result_of(request)
        except Exception as cause:  # noqa: BLE001 - what is not found safe must not be called safe
            _LOG.error("storage commitment could not be decided: %s", type(cause).__name__)
            failed = tuple((reference, PROCESSING_FAILURE) for reference in request.references)
            return CommitmentResult(request.transaction_uid, (), failed)

    def _problem_of_reporting(self, report: DueReport, result: CommitmentResult) -> str | None:
        """Report; what went wrong in words, or None if the requestor has its answer."""
        if report.remote is not None:
            try:
                report_commitment(result, report.remote)
            except AssociationFailed as failure:
                return str(failure)
            except SettingsError as wrong:
                return f"{report.remote} cannot be called: {wrong}"
            return None
        asked_in = self._asked_in.get(report.association_uid)
        if self._stopped.wait(_RESPONSE_GOES_FIRST_SECONDS):
            return "the listener is stopping"
        if asked_in is None or not asked_in.is_established:
            return "the requestor closed its association, and no port of it is known"
        if not _send_report(asked_in, result):
            return "the requestor did not take the report in its association"
        return None


def report_commitment(result: CommitmentResult, remote: RemoteAE) -> None:
    """Report a result in an association of our own (PS3.4 J.3.3), in the role of the provider.

    Args:
        result: what to report.
        remote: the requestor.

    Raises:
        AssociationFailed: the requestor was not reached or did not take the report.
    """
    contexts = [build_context(PUSH_MODEL, COMMITMENT_SYNTAXES)]
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
            require_sane_size(cast(N_EVENT_REPORT, event.request).EventInformation)
            report = result_from(event.event_information)
        except Exception:  # noqa: BLE001 - pydicom raises anything on a hostile dataset
            return _INVALID_ARGUMENT, None
        if report.transaction_uid == request.transaction_uid:
            reports.append(report)
            reported.set()
        return _SUCCESS, None

    contexts = [build_context(PUSH_MODEL, COMMITMENT_SYNTAXES)]
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
