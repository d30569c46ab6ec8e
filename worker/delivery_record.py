"""What became of a batch, recorded: each answer, damage of a file, a target out of reach.

Each function is one transaction's work. Studies are locked before their deliveries, and closed
where nothing of theirs is under way any more.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicom_io.delivery_status import Disposition
from dicom_io.errors import AssociationFailed, MultiMixError, StorageError
from dicom_io.sender import SendOutcome
from worker.backoff import Patience
from worker.columns import REASON_LENGTH
from worker.dispatching import call_for_substitute
from worker.events import EventKind, record
from worker.intake_rows import lock_study
from worker.settling import settle_study
from worker.tables import UNSETTLED, Delivery, DeliveryState, Peer

_LOG = logging.getLogger(__name__)

_FINAL_STATES = {
    Disposition.DELIVERED: DeliveryState.DELIVERED,
    Disposition.DELIVERED_WITH_WARNING: DeliveryState.DELIVERED,
    Disposition.REFUSED: DeliveryState.FAILED,
}
_EVENTS = {
    DeliveryState.DELIVERED: EventKind.RESULT_SENT,
    DeliveryState.AWAITING_COMMITMENT: EventKind.RESULT_SENT,
    DeliveryState.SUBSTITUTED: EventKind.RESULT_SUBSTITUTED,
    DeliveryState.NOT_TAKEN: EventKind.RESULT_REFUSED,
    DeliveryState.FAILED: EventKind.RESULT_REFUSED,
}


@dataclass(frozen=True)
class DueDelivery:
    """One delivery that is under way.

    Attributes:
        delivery_key: of its row.
        study_key: whose result it is.
        sop_instance_uid: of the result.
        relative_path: of its file, below the store.
        sha256: of its dataset when it was made.
        must_be_committed: whether the target is asked for storage commitment of it.
    """

    delivery_key: int
    study_key: int
    sop_instance_uid: str
    relative_path: str
    sha256: str
    must_be_committed: bool


def record_answers(
    session: Session,
    peer_key: int,
    answers: Sequence[tuple[DueDelivery, SendOutcome]],
    target: str,
    rules: Patience,
    now: datetime,
) -> None:
    """Record what a target that was reached said of each object.

    Args:
        session: a transaction of its own.
        peer_key: of the target.
        answers: each object of the batch with its answer.
        target: the target, for the log.
        rules: when what was not taken is sent again, and how long.
        now: the time.
    """
    session.execute(
        update(Peer)
        .where(Peer.peer_key == peer_key)
        .values(failures=0, next_attempt_at=None, last_failure=None)
    )
    due = [one for one, _ in answers]
    deliveries = _locked_deliveries(session, due)
    for one, outcome in answers:
        if (delivery := deliveries.get(one.delivery_key)) is None:
            continue
        _enter_answer(session, delivery, outcome, one.must_be_committed, rules, now)
        if delivery.state is not DeliveryState.PENDING:
            _tell_of(session, delivery, one, target, now)
    _settle(session, due, now)


def record_damage(
    session: Session, damaged: Sequence[tuple[DueDelivery, StorageError]], now: datetime
) -> None:
    """Record results whose file is no longer what was made; they are not sent.

    Args:
        session: a transaction of its own.
        damaged: each with what is wrong with its file.
        now: the time.
    """
    due = [one for one, _ in damaged]
    deliveries = _locked_deliveries(session, due)
    for one, damage in damaged:
        delivery = deliveries.get(one.delivery_key)
        if delivery is None:
            continue
        delivery.state, delivery.finished_at = DeliveryState.FAILED, now
        delivery.reason = str(damage)[:REASON_LENGTH]
        detail = {"sop_instance_uid": one.sop_instance_uid, "reason": delivery.reason}
        record(session, EventKind.RESULT_DAMAGED, now, study_key=one.study_key, detail=detail)
    _settle(session, due, now)


def record_failed_association(
    session: Session,
    peer_key: int,
    due: Sequence[DueDelivery],
    failure: Exception,
    rules: Patience,
    now: datetime,
) -> None:
    """Open the circuit: the target is left alone, and its objects wait without further ado.

    Args:
        session: a transaction of its own.
        peer_key: of the target.
        due: what was to be sent.
        failure: why it was not.
        rules: when the target is called again, and how long objects wait.
        now: the time.
    """
    transient = not isinstance(failure, AssociationFailed) or failure.transient
    peer = session.get_one(Peer, peer_key)
    reason = _what_failed(failure, peer)
    if peer.last_failure != reason:  # once, not at every attempt for days
        _LOG.warning("%s", reason)
    if peer.failures == 0:
        record(session, EventKind.TARGET_UNREACHABLE, now, detail={"reason": reason})
    peer.failures += 1
    # A rejection for good ends only by someone's hand: ask as seldom as the rules allow.
    failures = peer.failures if transient else max(peer.failures, 20)
    peer.next_attempt_at = now + rules.backoff.pause(failures)
    peer.last_failure = reason
    for delivery in _locked_deliveries(session, due).values():
        delivery.reason = reason
        delivery.next_attempt_at = peer.next_attempt_at
        if now - delivery.created_at >= rules.give_up_after:
            delivery.state, delivery.finished_at = DeliveryState.FAILED, now
    _settle(session, due, now)


def _enter_answer(
    session: Session,
    delivery: Delivery,
    outcome: SendOutcome,
    must_be_committed: bool,
    rules: Patience,
    now: datetime,
) -> None:
    """Change the row of a delivery; it stays pending where the answer was "later"."""
    delivery.status = outcome.status
    delivery.reason = _reason_of(outcome)
    if outcome.disposition is Disposition.CONTEXT_REFUSED:
        substitute = call_for_substitute(session, delivery, now)
        if substitute is not None:
            reason = f"{substitute.value} is sent instead; {delivery.reason}"
            delivery.reason = reason[:REASON_LENGTH]
    elif outcome.disposition in _FINAL_STATES:
        delivery.state = _FINAL_STATES[outcome.disposition]
        if delivery.state is DeliveryState.DELIVERED and must_be_committed:
            # Storage commitment has the last word; the target is asked for it at once.
            delivery.state, delivery.next_attempt_at = DeliveryState.AWAITING_COMMITMENT, now
    else:
        delivery.next_attempt_at = now + rules.backoff.pause(delivery.attempts)
        if now - delivery.created_at >= rules.give_up_after:
            delivery.state = DeliveryState.FAILED
    if delivery.state not in UNSETTLED:
        delivery.finished_at = now


def _tell_of(
    session: Session, delivery: Delivery, one: DueDelivery, target: str, now: datetime
) -> None:
    detail = {
        "sop_instance_uid": one.sop_instance_uid,
        "target": target,
        "attempts": delivery.attempts,
        "status": delivery.status,
        "outcome": delivery.reason,
    }
    if delivery.instead_of is not None:
        detail["instead_of"] = delivery.instead_of.value
    record(session, _EVENTS[delivery.state], now, study_key=one.study_key, detail=detail)


def _locked_deliveries(session: Session, due: Iterable[DueDelivery]) -> dict[int, Delivery]:
    """What is under way, by its key; nothing is left of a study that was erased meanwhile.

    Nobody else changes it until the transaction ends. The studies are locked first, in the order of
    their keys: a reader who supersedes results has its study before it touches them.
    """
    studies = {one.delivery_key: one.study_key for one in due}
    for study_key in sorted(set(studies.values())):
        lock_study(session, study_key)
    rows = session.scalars(select(Delivery).where(Delivery.delivery_key.in_(studies)))
    # SQLite gives the keys of deleted rows away again.
    return {row.delivery_key: row for row in rows if row.study_key == studies[row.delivery_key]}


def _settle(session: Session, due: Iterable[DueDelivery], now: datetime) -> None:
    """Close studies in the order of their keys, so that two senders never wait for each other."""
    for study_key in sorted({one.study_key for one in due}):
        settle_study(session, study_key, now)


def _what_failed(failure: Exception, peer: Peer) -> str:
    """What may be told of an error: ours in full; of others the kind, for they may quote data."""
    if isinstance(failure, MultiMixError):
        return str(failure)[:REASON_LENGTH]
    return f"sending to {peer.name} failed: internal, {type(failure).__name__}"


def _reason_of(outcome: SendOutcome) -> str:
    parts = [outcome.disposition.value]
    if outcome.status is not None:
        parts.append(f"status 0x{outcome.status:04X}")
    if outcome.detail:
        parts.append(outcome.detail)
    return ", ".join(parts)[:REASON_LENGTH]
