"""What a target's answer to our question of storage commitment means for our deliveries."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.storage_commitment import CommitmentResult
from worker.backoff import Patience
from worker.commitment_tables import CommitmentRequest
from worker.events import EventKind, record
from worker.settling import settle_study
from worker.tables import Delivery, DeliveryState, Peer, Result


def enter_report(
    session: Session,
    calling_ae_title: str,
    result: CommitmentResult,
    rules: Patience,
    now: datetime,
) -> None:
    """Enter an answer that came in an association of the target's own.

    Args:
        session: the transaction.
        calling_ae_title: who reports.
        result: the answer.
        rules: when what was not committed is sent again, and how long.
        now: the time.

    Raises:
        ValueError: no such question was asked, or not of this peer.
    """
    peer = session.scalars(
        select(Peer)
        .join(CommitmentRequest, CommitmentRequest.peer_key == Peer.peer_key)
        .where(CommitmentRequest.transaction_uid == result.transaction_uid)
    ).one_or_none()
    if peer is None or peer.ae_title != calling_ae_title:
        raise ValueError(f"{result.transaction_uid} is no question of ours to {calling_ae_title}")
    enter_answer(session, peer, result, rules, now)


def enter_answer(
    session: Session, peer: Peer, result: CommitmentResult, rules: Patience, now: datetime
) -> None:
    """Close the deliveries that a target commits to, and send again what it does not.

    An answer may come twice, or after its question was repeated; only what still waits changes.

    Args:
        session: the transaction.
        peer: the target.
        result: its answer to a question that it was asked.
        rules: when what was not committed is sent again, and how long.
        now: the time.
    """
    request = session.scalars(
        select(CommitmentRequest).where(CommitmentRequest.transaction_uid == result.transaction_uid)
    ).one()
    request.answered_at = request.answered_at or now
    committed = {reference.sop_instance_uid for reference in result.committed}
    failed = {reference.sop_instance_uid: reason for reference, reason in result.failed}
    studies = set()
    for delivery, sop_instance_uid in session.execute(
        select(Delivery, Result.sop_instance_uid)
        .join(Result)
        .where(
            Delivery.peer_key == peer.peer_key,
            Delivery.state == DeliveryState.AWAITING_COMMITMENT,
        )
    ):
        if sop_instance_uid in failed:
            kind = EventKind.RESULT_NOT_COMMITTED
            _send_again(delivery, failed[sop_instance_uid], rules, now)
        elif sop_instance_uid in committed:
            kind = EventKind.RESULT_COMMITTED
            delivery.state, delivery.finished_at = DeliveryState.DELIVERED, now
            delivery.reason = "delivered, and committed by the target"
        else:
            continue
        studies.add(delivery.study_key)
        detail = {
            "sop_instance_uid": sop_instance_uid,
            "target": peer.name,
            "outcome": delivery.reason,
        }
        record(session, kind, now, study_key=delivery.study_key, detail=detail)
    for study_key in sorted(studies):
        settle_study(session, study_key, now)


def _send_again(delivery: Delivery, failure_reason: int, rules: Patience, now: datetime) -> None:
    delivery.reason = f"stored, but not committed by the target, reason 0x{failure_reason:04X}"
    if now - delivery.created_at >= rules.give_up_after:
        delivery.state, delivery.finished_at = DeliveryState.FAILED, now
    else:
        delivery.state = DeliveryState.PENDING
        delivery.next_attempt_at = now + rules.backoff.pause(delivery.attempts)
