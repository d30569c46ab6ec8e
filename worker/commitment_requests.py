"""Targets are asked whether they keep our results safe; until they commit, nothing is delivered.

The question is a row before it is asked, and the next one is dated; so an answer that comes to the
listener at once finds it, and a question that was never answered is asked again.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydicom.uid import generate_uid
from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.errors import MultiMixError
from dicom_io.remote import RemoteAE
from dicom_io.storage_commitment import CommitmentRequest, CommitmentResult, InstanceReference
from worker.backoff import Backoff
from worker.clock import utc_now
from worker.columns import REASON_LENGTH
from worker.commitment_answers import enter_answer
from worker.commitment_tables import CommitmentRequest as RequestRow
from worker.database import Database
from worker.settling import settle_study
from worker.tables import Delivery, DeliveryState, Peer, Result

_LOG = logging.getLogger(__name__)
_MOST_INSTANCES: Final = 500

Ask = Callable[[CommitmentRequest, RemoteAE], CommitmentResult | None]


@dataclass(frozen=True)
class CommitmentRules:
    """How targets are asked.

    Attributes:
        wait: a target that has not answered within this time is asked again.
        backoff: pauses before an object that was not committed is sent again.
        give_up_after: an object that was not committed for so long is set aside.
    """

    wait: timedelta
    backoff: Backoff
    give_up_after: timedelta


class CommitmentRequester:
    """Asks one target after the other for what it has stored and not committed to.

    Args:
        database: where deliveries wait.
        ask: asks a remote AE, ``dicom_io.commitment_service.request_commitment``.
        remote_at: how a target is called, by its AE title, host and port.
        rules: how targets are asked.
        now: the clock.
    """

    def __init__(
        self,
        database: Database,
        ask: Ask,
        remote_at: Callable[[str, str, int], RemoteAE],
        rules: CommitmentRules,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._ask = ask
        self._remote_at = remote_at
        self._rules = rules
        self._now = now

    def ask(self, peer_key: int) -> None:
        """Ask a target of the settings for everything that is due to be asked, in one question."""
        question = self._enter_question(peer_key)
        if question is None:
            return
        request, remote = question
        try:
            answer = self._ask(request, remote)
        except MultiMixError as failure:
            _LOG.warning("%s", failure)
            self._note_failure(peer_key, request.references, str(failure))
            return
        if answer is not None:
            with self._database.writing() as session:
                peer = session.get_one(Peer, peer_key)
                enter_answer(session, peer, answer, self._rules, self._now())

    def _enter_question(self, peer_key: int) -> tuple[CommitmentRequest, RemoteAE] | None:
        """Note what is asked, and when it is asked again; None if nothing is due."""
        now = self._now()
        with self._database.writing() as session:
            peer = session.get_one(Peer, peer_key)
            if not peer.configured:
                return None
            due = session.execute(
                select(Delivery, Result)
                .join(Result)
                .where(
                    Delivery.peer_key == peer_key,
                    Delivery.state == DeliveryState.AWAITING_COMMITMENT,
                    Delivery.next_attempt_at <= now,
                )
                .order_by(Delivery.delivery_key)
                .limit(_MOST_INSTANCES)
                .with_for_update(of=Delivery, skip_locked=True)
            ).all()
            references = []
            for delivery, result in due:
                if self._is_over(session, delivery, peer, now):
                    continue
                delivery.next_attempt_at = now + self._rules.wait
                references.append(InstanceReference(result.sop_class_uid, result.sop_instance_uid))
            if not references:
                return None
            request = CommitmentRequest(generate_uid(prefix=None), tuple(references))
            session.add(
                RequestRow(transaction_uid=request.transaction_uid, peer_key=peer_key, asked_at=now)
            )
            return request, self._remote_at(peer.ae_title, peer.host, peer.port)

    def _is_over(self, session: Session, delivery: Delivery, peer: Peer, now: datetime) -> bool:
        """Close a delivery whose target is asked no more, by the settings or after too long."""
        if not peer.commits:
            delivery.state = DeliveryState.DELIVERED
        elif now - delivery.created_at >= self._rules.give_up_after:
            delivery.state = DeliveryState.FAILED
            delivery.reason = f"stored, but never committed: {delivery.reason}"[:REASON_LENGTH]
        else:
            return False
        delivery.finished_at = now
        settle_study(session, delivery.study_key, now)
        return True

    def _note_failure(
        self, peer_key: int, references: Sequence[InstanceReference], reason: str
    ) -> None:
        asked = {reference.sop_instance_uid for reference in references}
        with self._database.writing() as session:
            for delivery in session.scalars(
                select(Delivery)
                .join(Result)
                .where(
                    Delivery.peer_key == peer_key,
                    Delivery.state == DeliveryState.AWAITING_COMMITMENT,
                    Result.sop_instance_uid.in_(asked),
                )
            ):
                delivery.reason = f"stored, not committed yet: {reason}"[:REASON_LENGTH]
