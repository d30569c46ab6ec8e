"""What of the instances that peers ask about is safe here, and whom that must still be told.

Safe is what stands in the database and lies on the disk with the hash that it had when it came. A
question is a row until its answer is reported, so neither a restart of the listener nor an absence
of the requestor loses it.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from dicom_io.access_control import AssociationFacts
from dicom_io.errors import StorageError
from dicom_io.remote import RemoteAE
from dicom_io.storage import InstanceStore
from dicom_io.storage_commitment import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    CommitmentRequest,
    CommitmentResult,
    DueReport,
    InstanceReference,
)
from worker.backoff import Backoff
from worker.clock import utc_now
from worker.columns import REASON_LENGTH
from worker.commitment_answers import enter_report
from worker.commitment_tables import CommitmentQuestion
from worker.database import Database, insert_if_absent
from worker.events import EventKind, record
from worker.tables import Instance, Result

_LOG = logging.getLogger(__name__)
_MOST_QUESTIONS: Final = 200
_MOST_QUESTIONS_OF_PEER: Final = 50
_REPORTS_AT_A_TIME: Final = 20
_UIDS_AT_A_TIME: Final = 500

ReturnAddress = Callable[[str, str], RemoteAE | None]


@dataclass(frozen=True)
class ReportRules:
    """How often an answer is reported.

    Attributes:
        backoff: pauses before a requestor that did not take the answer is told again.
        give_up_after: an answer that nobody took for so long is dropped.
    """

    backoff: Backoff
    give_up_after: timedelta


class TooManyQuestions(Exception):
    """The peer has more questions open than it may; it may ask again later."""


class DatabaseCommitmentRegister:
    """The register of storage commitment on the node's database and store.

    Args:
        database: with the current schema.
        store: where instances lie.
        listener: name of the listener, as of the associations that it takes.
        return_address: where a peer takes reports, by its calling AE title and its IP address;
            None if only its own association is left.
        rules: how often an answer is reported.
        now: the clock.
    """

    def __init__(
        self,
        database: Database,
        store: InstanceStore,
        listener: str,
        return_address: ReturnAddress,
        rules: ReportRules,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._store = store
        self._listener = listener
        self._return_address = return_address
        self._rules = rules
        self._now = now

    def take_request(self, association: AssociationFacts, request: CommitmentRequest) -> None:
        """Enter a question; the same transaction UID of the same peer again is the same question.

        Raises:
            TooManyQuestions: so many wait already that the peer shall come back later.
        """
        now = self._now()
        instances = [[ref.sop_class_uid, ref.sop_instance_uid] for ref in request.references]
        with self._database.writing() as session:
            _require_room(session, association.calling_ae_title)
            insert_if_absent(
                session,
                CommitmentQuestion,
                listener=self._listener,
                association_uid=association.association_uid,
                calling_ae_title=association.calling_ae_title,
                host=association.peer_address,
                transaction_uid=request.transaction_uid,
                instances=instances,
                asked_at=now,
                attempts=0,
                next_attempt_at=now,
            )

    def due_reports(self) -> Sequence[DueReport]:
        """The questions of this listener whose answer is to be reported now."""
        with self._database.reading() as session:
            questions = session.scalars(
                select(CommitmentQuestion)
                .where(
                    CommitmentQuestion.listener == self._listener,
                    CommitmentQuestion.next_attempt_at <= self._now(),
                )
                .order_by(CommitmentQuestion.next_attempt_at)
                .limit(_REPORTS_AT_A_TIME)
            ).all()
        return [self._due(question) for question in questions]

    def result_of(self, request: CommitmentRequest) -> CommitmentResult:
        """What of the instances is safe; each file is read and its hash compared."""
        known = self._known(ref.sop_instance_uid for ref in request.references)
        committed: list[InstanceReference] = []
        failed: list[tuple[InstanceReference, int]] = []
        # However often a requestor names an instance, its file is read once.
        for reference in dict.fromkeys(request.references):
            reason = self._failure_of(reference, known.get(reference.sop_instance_uid))
            if reason is None:
                committed.append(reference)
            else:
                failed.append((reference, reason))
        return CommitmentResult(request.transaction_uid, tuple(committed), tuple(failed))

    def reported(self, report: DueReport) -> None:
        """Forget a question whose answer the requestor has taken."""
        self._close(report, EventKind.COMMITMENT_REPORTED, {})

    def not_reported(self, report: DueReport, reason: str) -> None:
        """Date the next attempt; drop the question if there is no way, or after too long."""
        now = self._now()
        with self._database.writing() as session:
            question = session.get(CommitmentQuestion, report.report_key)
            if question is None:
                return
            question.attempts += 1
            question.next_attempt_at = now + self._rules.backoff.pause(question.attempts)
            first = question.attempts == 1
            too_old = now - question.asked_at >= self._rules.give_up_after
        if first or too_old or report.remote is None:
            _LOG.warning("storage commitment is not reported: %s", reason)
        if too_old or report.remote is None:
            # The requestor asks again, as it must be able to anyway (PS3.4 J.3.2.1).
            self._close(report, EventKind.COMMITMENT_DROPPED, {"reason": reason[:REASON_LENGTH]})

    def commitment_reported(self, association: AssociationFacts, result: CommitmentResult) -> None:
        """Enter a target's answer to a question of ours.

        Raises:
            ValueError: we asked no such question, or another peer.
        """
        with self._database.writing() as session:
            enter_report(session, association.calling_ae_title, result, self._rules, self._now())

    def _due(self, question: CommitmentQuestion) -> DueReport:
        return DueReport(
            question.question_key,
            question.association_uid,
            CommitmentRequest(
                question.transaction_uid,
                tuple(InstanceReference(*pair) for pair in question.instances),
            ),
            self._return_address(question.calling_ae_title, question.host),
        )

    def _known(self, uids: Iterable[str]) -> dict[str, tuple[str, str, str]]:
        """SOP Class UID, path and hash of what the database knows, by SOP Instance UID."""
        wanted = sorted(set(uids))
        known: dict[str, tuple[str, str, str]] = {}
        with self._database.reading() as session:
            for first in range(0, len(wanted), _UIDS_AT_A_TIME):
                some = wanted[first : first + _UIDS_AT_A_TIME]
                # A result of ours that came back is kept too, though not a second time.
                results = select(Result).where(Result.sop_instance_uid.in_(some))
                instances = select(Instance).where(Instance.sop_instance_uid.in_(some))
                for row in (*session.scalars(results), *session.scalars(instances)):
                    uid = str(row.sop_instance_uid)
                    known[uid] = (row.sop_class_uid, row.relative_path, row.sha256)
        return known

    def _failure_of(
        self, reference: InstanceReference, known: tuple[str, str, str] | None
    ) -> int | None:
        if known is None:
            return NO_SUCH_INSTANCE
        sop_class_uid, relative_path, sha256 = known
        if reference.sop_class_uid != sop_class_uid:
            return CLASS_INSTANCE_CONFLICT
        try:
            self._store.verify(relative_path, sha256)
        except StorageError as damage:
            _LOG.error("storage commitment: %s", damage)
            return PROCESSING_FAILURE
        return None

    def _close(self, report: DueReport, kind: EventKind, detail: dict[str, str]) -> None:
        with self._database.writing() as session:
            calling = session.scalars(
                delete(CommitmentQuestion)
                .where(CommitmentQuestion.question_key == report.report_key)
                .returning(CommitmentQuestion.calling_ae_title)
            ).one_or_none()
            if calling is None:
                return
            detail |= {
                "transaction_uid": report.request.transaction_uid,
                "calling": calling,
                "instances": str(len(report.request.references)),
            }
            record(session, kind, self._now(), detail=detail)


def _require_room(session: Session, calling_ae_title: str) -> None:
    """Refuse what would let peers fill the database with questions."""
    count = select(func.count()).select_from(CommitmentQuestion)
    of_peer = count.where(CommitmentQuestion.calling_ae_title == calling_ae_title)
    if session.scalar(count) >= _MOST_QUESTIONS or (  # type: ignore[operator]
        session.scalar(of_peer) >= _MOST_QUESTIONS_OF_PEER  # type: ignore[operator]
    ):
        raise TooManyQuestions(f"{calling_ae_title} has too many questions open")
