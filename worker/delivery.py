"""Results are sent to a target: what is due, in one association at a time, every answer recorded.

Due times stand in the database. An attempt is counted, and its repetition dated, before the
association is opened; so whatever ends the sender, nothing is forgotten, and an object that is sent
twice is the same object.
"""

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
from dicom_io.errors import StorageError
from dicom_io.sender import RemoteAE, SendOutcome
from dicom_io.storage import InstanceStore
from worker.backoff import Backoff
from worker.clock import utc_now
from worker.database import Database
from worker.delivery_record import (
    DueDelivery,
    record_answers,
    record_damage,
    record_failed_association,
)
from worker.heartbeat import Heartbeat
from worker.tables import Delivery, DeliveryState, Peer, Result

Recipient = RemoteAE | DicomWebService
Send = Callable[[Sequence[Path], Recipient], list[SendOutcome]]


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

    def _take_due(self, peer_key: int, token: str) -> list[DueDelivery]:
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
                DueDelivery(
                    delivery.delivery_key,
                    delivery.study_key,
                    result.sop_instance_uid,
                    result.relative_path,
                    result.sha256,
                    must_be_committed,
                )
                for delivery, result in rows
            ]

    def _send_batch(self, peer_key: int, recipient: Recipient, due: list[DueDelivery]) -> bool:
        """Send a batch and record every answer; False if the target could not be reached."""
        due = self._set_aside_damaged(due)
        if not due:
            return True
        try:
            paths = [self._store.path_of(one.relative_path) for one in due]
            outcomes = self._send(paths, recipient)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the results must not be stuck
            with self._database.writing() as session:
                record_failed_association(session, peer_key, due, failure, self._rules, self._now())
            return False
        answers = list(zip(due, outcomes, strict=True))
        with self._database.writing() as session:
            record_answers(session, peer_key, answers, str(recipient), self._rules, self._now())
        # A target that answers nothing but "later" is left alone until the first is due again.
        return any(outcome.disposition is not Disposition.RETRY for outcome in outcomes)

    def _set_aside_damaged(self, due: list[DueDelivery]) -> list[DueDelivery]:
        """Record results whose file is no longer what was made; those that still are it remain."""
        intact: list[DueDelivery] = []
        damaged: list[tuple[DueDelivery, StorageError]] = []
        for one in due:
            try:
                self._store.verify(one.relative_path, one.sha256)
            except StorageError as damage:
                damaged.append((one, damage))
            else:
                intact.append(one)
        if damaged:
            with self._database.writing() as session:
                record_damage(session, damaged, self._now())
        return intact


def _change_peer(session: Session, peer_key: int, token: str, **changes: object) -> bool:
    """Change columns of a peer that this sender holds; False if it holds it no longer."""
    changed = session.execute(
        update(Peer)
        .where(Peer.peer_key == peer_key, Peer.lease_token == token)
        .values(**changes)
        .returning(Peer.peer_key)
    ).one_or_none()
    return changed is not None
