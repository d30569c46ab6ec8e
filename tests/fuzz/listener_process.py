"""A listener in a process of its own, so that its threads and memory are nobody else's.

    python -m tests.fuzz.listener_process STORE IDLE_TIMEOUT_SECONDS

prints its port, then a line for each association that ended: accepted and ended so far.
"""

import sys
import threading
from pathlib import Path

from dicom_io.access_control import AssociationFacts, Refusal
from dicom_io.commitment_service import CommitmentService
from dicom_io.intake import ReceivedInstance
from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.storage import InstanceStore
from dicom_io.storage_commitment import CommitmentRequest, CommitmentResult, DueReport


class CountingIntake:
    """Counts associations and instances."""

    def __init__(self) -> None:
        self.accepted = self.ended = self.stored = 0
        self._lock = threading.Lock()

    def association_accepted(self, association: AssociationFacts) -> None:
        with self._lock:
            self.accepted += 1

    def instance_stored(self, association: AssociationFacts, instance: ReceivedInstance) -> None:
        with self._lock:
            self.stored += 1

    def association_ended(self, association: AssociationFacts, released: bool) -> None:
        with self._lock:
            self.ended += 1

    def association_refused(self, association: AssociationFacts, reason: Refusal) -> None:
        return


class ForgetfulRegister:
    """Takes every question and every answer, and has nothing to report."""

    def take_request(self, association: AssociationFacts, request: CommitmentRequest) -> None:
        return

    def due_reports(self) -> tuple[DueReport, ...]:
        return ()

    def result_of(self, request: CommitmentRequest) -> CommitmentResult:
        return CommitmentResult(request.transaction_uid, ())

    def reported(self, report: DueReport) -> None:
        return

    def not_reported(self, report: DueReport, reason: str) -> None:
        return

    def commitment_reported(self, association: AssociationFacts, result: CommitmentResult) -> None:
        return


def main() -> None:
    """Listen until standard input ends; then say what was counted."""
    configuration = ListenerConfiguration(
        "MULTIMIX",
        association_timeout_seconds=2,
        idle_timeout_seconds=float(sys.argv[2]),
        maximum_object_bytes=1 << 20,
    )
    intake = CountingIntake()
    store = InstanceStore(Path(sys.argv[1]))
    with (
        CommitmentService(ForgetfulRegister()) as commitment,
        Listener(configuration, store, intake, commitment) as listener,
    ):
        sys.stdout.write(f"{listener.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        still_open = len(listener.open_associations)
    sys.stdout.write(f"{intake.accepted} {intake.ended} {intake.stored} {still_open}\n")


if __name__ == "__main__":
    main()
