"""Results are sent to a target: what is due, in one association at a time, every answer recorded.

Due times stand in the database. An attempt is counted, and its repetition dated, before the
association is opened; so whatever ends the sender, nothing is forgotten, and an object that is sent
twice is the same object.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from dicom_io.delivery_status import Disposition
from dicom_io.dicomweb import DicomWebService
from dicom_io.errors import AssociationFailed, MultiMixError, StorageError
from dicom_io.sender import RemoteAE, SendOutcome
from dicom_io.storage import InstanceStore
from worker.backoff import Backoff
from worker.clock import utc_now
from worker.database import Database
from worker.dispatching import call_for_substitute
from worker.events import EventKind, record
from worker.heartbeat import Heartbeat
from worker.intake_rows import lock_study
from worker.settling import settle_study
from worker.tables import REASON_LENGTH, Delivery, DeliveryState, Peer, Result

_LOG = logging.getLogger(__name__)

Recipient = RemoteAE | DicomWebService
Send = Callable[[Sequence[Path], Recipient], list[SendOutcome]]

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
class DeliveryRules:
    """How to send, and how often.

    Attributes:
        ae_title: our own AE title.
        lease: a sender that gives no sign of life for so long has lost its target.
        batch: most objects in one association.
        backoff: pauses before an object, or a target, is tried again.
        give_up_after: an object that could not be sent for so long is set aside.
        slice_seconds: a target that takes longer for what is due is left between two associations,
            so that others get their turn; the sweeper calls for the rest.
    """

    ae_title: str
    lease: timedelta
    batch: int
    backoff: Backoff
    give_up_after: timedelta
    slice_seconds: float = 30.0


@dataclass(frozen=True)
class _Due:
    """One delivery that is under way."""

    delivery_key: int
    study_key: int
    sop_instance_uid: str
    relative_path: str
    sha256: str
    must_be_committed: bool


class ResultSender:
    """Sends what is due to one target after the other.

    Args:
        database: where deliveries wait.
        store: where result objects lie.
        send: sends files to a remote AE or a DICOMweb service.
        rules: how to send, and how often.
        now: the clock.
    """

    def __init__(
        self,
        database: Database,
        store: InstanceStore,
        send: Send,
        rules: DeliveryRules,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._store = store
        self._send = send
        self._rules = rules
        self._now = now

    def deliver_to(self, peer_key: int) -> None:
        """Send what is due to a target, until nothing or no time is left, or the target fails.

        A target that another sender is calling, that must be left alone for now, or that the
        settings no longer name, is left alone.
        """
        token = str(uuid.uuid4())
        started = time.monotonic()
        recipient = self._claim(peer_key, token)
        if recipient is None:
            return
        try:
            interval = self._rules.lease.total_seconds() / 3
            with Heartbeat(lambda: self._renew(peer_key, token), interval) as held:
                while due := self._take_due(peer_key, token):
                    held.require_held()
                    if not self._send_batch(peer_key, recipient, due):
                        break
                    if time.monotonic() - started > self._rules.slice_seconds:
                        break
        finally:
            self._release(peer_key, token)

    def _claim(self, peer_key: int, token: str) -> Recipient | None:
        now = self._now()
        with self._database.writing() as session:
            peer = session.execute(
                update(Peer)
                .where(
                    Peer.peer_key == peer_key,
                    Peer.configured,
                    or_(Peer.lease_token.is_(None), Peer.lease_expires_at <= now),
                    or_(Peer.next_attempt_at.is_(None), Peer.next_attempt_at <= now),
                )
                .values(lease_token=token, lease_expires_at=now + self._rules.lease, woken_at=None)
                .returning(Peer.ae_title, Peer.host, Peer.port, Peer.url)
            ).one_or_none()
        if peer is None:
            return None
        if peer.url is not None:
            return DicomWebService(peer.url)
        return RemoteAE(peer.ae_title, peer.host, peer.port, calling_ae_title=self._rules.ae_title)

    def _renew(self, peer_key: int, token: str) -> bool:
        with self._database.writing() as session:
            return _change_peer(
                session, peer_key, token, lease_expires_at=self._now() + self._rules.lease
            )

    def _release(self, peer_key: int, token: str) -> None:
        with self._database.writing() as session:
            _change_peer(session, peer_key, token, lease_token=None, lease_expires_at=None)

    def _take_due(self, peer_key: int, token: str) -> list[_Due]:
        """Count an attempt of what is due, and date the next one in case we do not come back."""
        now = self._now()
        with self._database.writing() as session:
            if not _change_peer(session, peer_key, token, lease_expires_at=now + self._rules.lease):
                return []
            rows = session.execute(
                select(Delivery, Result)
                .join(Result)
                .where(
                    Delivery.peer_key == peer_key,
                    Delivery.state == DeliveryState.PENDING,
                    Delivery.next_attempt_at <= now,
                )
                .order_by(Delivery.delivery_key)
                .limit(self._rules.batch)
            ).all()
            must_be_committed = session.get_one(Peer, peer_key).commits
            for delivery, _ in rows:
                delivery.attempts += 1
                pause = self._rules.backoff.pause(delivery.attempts)
                delivery.next_attempt_at = now + max(pause, self._rules.lease)
            return [
                _Due(
                    delivery.delivery_key,
                    delivery.study_key,
                    result.sop_instance_uid,
                    result.relative_path,
                    result.sha256,
                    must_be_committed,
                )
                for delivery, result in rows
            ]

    def _send_batch(self, peer_key: int, recipient: Recipient, due: list[_Due]) -> bool:
        """Send a batch and record every answer; False if the target could not be reached."""
        due = self._set_aside_damaged(due)
        if not due:
            return True
        try:
            paths = [self._store.path_of(one.relative_path) for one in due]
            outcomes = self._send(paths, recipient)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the results must not be stuck
            self._record_failed_association(peer_key, due, failure)
            return False
        now = self._now()
        with self._database.writing() as session:
            session.execute(
                update(Peer)
                .where(Peer.peer_key == peer_key)
                .values(failures=0, next_attempt_at=None, last_failure=None)
            )
            deliveries = _deliveries_of(session, due)
            for one, outcome in zip(due, outcomes, strict=True):
                if (delivery := deliveries.get(one.delivery_key)) is not None:
                    self._record_outcome(session, one, delivery, outcome, recipient, now)
            _settle(session, due, now)
        # A target that answers nothing but "later" is left alone until the first is due again.
        return any(outcome.disposition is not Disposition.RETRY for outcome in outcomes)

    def _record_outcome(
        self,
        session: Session,
        one: _Due,
        delivery: Delivery,
        outcome: SendOutcome,
        recipient: Recipient,
        now: datetime,
    ) -> None:
        delivery.status = outcome.status
        delivery.reason = _reason_of(outcome)
        substitute = None
        if outcome.disposition is Disposition.CONTEXT_REFUSED:
            substitute = call_for_substitute(session, delivery, now)
            if substitute is not None:
                reason = f"{substitute.value} is sent instead; {delivery.reason}"
                delivery.reason = reason[:REASON_LENGTH]
        elif outcome.disposition in _FINAL_STATES:
            delivery.state = _FINAL_STATES[outcome.disposition]
            if delivery.state is DeliveryState.DELIVERED and one.must_be_committed:
                # Storage commitment has the last word; the target is asked for it at once.
                delivery.state, delivery.next_attempt_at = DeliveryState.AWAITING_COMMITMENT, now
        else:
            delivery.next_attempt_at = now + self._rules.backoff.pause(delivery.attempts)
            if now - delivery.created_at < self._rules.give_up_after:
                return
            delivery.state = DeliveryState.FAILED
        if delivery.state is not DeliveryState.AWAITING_COMMITMENT:
            delivery.finished_at = now
        detail = {
            "sop_instance_uid": one.sop_instance_uid,
            "target": str(recipient),
            "attempts": delivery.attempts,
            "status": outcome.status,
            "outcome": delivery.reason,
        }
        if delivery.instead_of is not None:
            detail["instead_of"] = delivery.instead_of.value
        record(session, _EVENTS[delivery.state], now, study_key=one.study_key, detail=detail)

    def _set_aside_damaged(self, due: list[_Due]) -> list[_Due]:
        """Record results whose file is no longer what was made; those that still are it remain."""
        intact, damaged = [], []
        for one in due:
            try:
                self._store.verify(one.relative_path, one.sha256)
            except StorageError as damage:
                damaged.append((one, str(damage)[:REASON_LENGTH]))
            else:
                intact.append(one)
        if damaged:
            now = self._now()
            with self._database.writing() as session:
                deliveries = _deliveries_of(session, [one for one, _ in damaged])
                for one, reason in damaged:
                    delivery = deliveries.get(one.delivery_key)
                    if delivery is None:
                        continue
                    delivery.state, delivery.reason = DeliveryState.FAILED, reason
                    delivery.finished_at = now
                    detail = {"sop_instance_uid": one.sop_instance_uid, "reason": reason}
                    record(
                        session,
                        EventKind.RESULT_DAMAGED,
                        now,
                        study_key=one.study_key,
                        detail=detail,
                    )
                _settle(session, [one for one, _ in damaged], now)
        return intact

    def _record_failed_association(
        self, peer_key: int, due: list[_Due], failure: Exception
    ) -> None:
        """Open the circuit: the target is left alone, and its objects wait without further ado."""
        now = self._now()
        transient = not isinstance(failure, AssociationFailed) or failure.transient
        with self._database.writing() as session:
            peer = session.get_one(Peer, peer_key)
            reason = _what_failed(failure, peer)
            if peer.last_failure != reason:  # once, not at every attempt for days
                _LOG.warning("%s", reason)
            if peer.failures == 0:
                record(session, EventKind.TARGET_UNREACHABLE, now, detail={"reason": reason})
            peer.failures += 1
            # A rejection for good ends only by someone's hand: ask as seldom as the rules allow.
            failures = peer.failures if transient else max(peer.failures, 20)
            peer.next_attempt_at = now + self._rules.backoff.pause(failures)
            peer.last_failure = reason
            for delivery in _deliveries_of(session, due).values():
                delivery.reason = reason
                delivery.next_attempt_at = peer.next_attempt_at
                if now - delivery.created_at >= self._rules.give_up_after:
                    delivery.state, delivery.finished_at = DeliveryState.FAILED, now
            _settle(session, due, now)


def _deliveries_of(session: Session, due: list[_Due]) -> dict[int, Delivery]:
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


def _settle(session: Session, due: list[_Due], now: datetime) -> None:
    """Close studies in the order of their keys, so that two senders never wait for each other."""
    for study_key in sorted({one.study_key for one in due}):
        settle_study(session, study_key, now)


def _change_peer(session: Session, peer_key: int, token: str, **changes: object) -> bool:
    """Change columns of a peer that this sender holds; False if it holds it no longer."""
    changed = session.execute(
        update(Peer)
        .where(Peer.peer_key == peer_key, Peer.lease_token == token)
        .values(**changes)
        .returning(Peer.peer_key)
    ).one_or_none()
    return changed is not None


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
