"""What is due by the database is set going: quiet studies, lost leases, wake-ups, deliveries.

Everything can be done twice, and by several sweepers at once, with the same outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from sqlalchemy import or_, select, update

from worker.clock import utc_now
from worker.database import Database
from worker.intake_rows import lock_study
from worker.queueing import QUEUES, READING_QUEUE
from worker.settling import settle_study
from worker.studies import Step, StudyState
from worker.study_steps import take_step
from worker.tables import UNSETTLED, Delivery, DeliveryState, Peer, Study

_NOT_NAMED: Final = "the settings no longer name it; `requeue` gives it up, or sends it once named"


class Wakes(Protocol):
    """What the sweeper asks of the queue; ``worker.queueing.Waker`` does it."""

    def wake_reader(self, study_key: int) -> bool:
        """Ask a worker to read a study; False if the broker is away."""

    def wake_sender(self, peer_key: int) -> bool:
        """Ask a worker to send what is due to a target; False if the broker is away."""

    def ask_for_sign_of_life(self, queue: str) -> bool:
        """Send a heartbeat task through a queue; False if the broker is away."""

    def waiting(self, queue: str) -> int | None:
        """How many messages wait in a queue; None if the broker is away."""


@dataclass(frozen=True)
class SweepRules:
    """How often, and how much at a time.

    Attributes:
        most_attempts: claims in a row without progress after which a study has failed.
        longest_wait: no study waits longer than this to become ready, by its listener's clock.
        longest_queue: wake-ups that may wait in the queue; more studies wait in the database.
        forgotten_after: a wake-up that nobody followed for so long is lost if the queue holds fewer
            messages than there are studies that were woken.
        repeated_after: it is repeated after so long in any case.
        give_up_after: a result that waited so long for a target that the settings no longer name is
            set aside.
        heartbeat_every: pause between two heartbeat tasks.
        heartbeat_retry: pause after one that the broker could not take.
    """

    most_attempts: int
    longest_wait: timedelta = timedelta(minutes=10)
    longest_queue: int = 200
    forgotten_after: timedelta = timedelta(seconds=5)
    repeated_after: timedelta = timedelta(minutes=10)
    give_up_after: timedelta = timedelta(hours=72)
    heartbeat_every: timedelta = timedelta(seconds=5)
    heartbeat_retry: timedelta = timedelta(seconds=1)


class Sweeper:
    """Finds in the database what is due.

    Args:
        database: the truth.
        waker: the queue.
        rules: how often, and how much at a time.
        now: the clock.
    """

    def __init__(
        self,
        database: Database,
        waker: Wakes,
        rules: SweepRules,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._waker = waker
        self._rules = rules
        self._now = now
        self._next_heartbeat: datetime | None = None

    def sweep(self) -> None:
        """Do all of it once."""
        self.promote_quiet_studies()
        self.take_back_expired_leases()
        self.wake_readers()
        self.wake_senders()
        self.set_aside_what_nobody_takes()
        self.settle_what_was_left()
        self.ask_for_signs_of_life()

    def promote_quiet_studies(self) -> None:
        """Received studies are ready when their time has come.

        So are those whose time is further off than any can be: a clock that was ahead set it.
        """
        now = self._now()
        # The listener's clock may differ from this one by less than another longest wait.
        due = or_(Study.ready_at <= now, Study.ready_at > now + 2 * self._rules.longest_wait)
        with self._database.reading() as session:
            quiet = session.scalars(
                select(Study.study_key).where(Study.state == StudyState.RECEIVED, due)
            ).all()
        for study_key in quiet:
            with self._database.writing() as session:
                take_step(
                    session,
                    study_key,
                    StudyState.RECEIVED,
                    StudyState.READY,
                    Step.BECAME_QUIET,
                    now,
                    changes={"woken_at": None, "next_attempt_at": None, "attempts": 0},
                    # It may have grown since it was found.
                    conditions=(due,),
                )

    def take_back_expired_leases(self) -> None:
        """Studies whose worker gave no sign of life are ready again, or have failed for good."""
        now = self._now()
        with self._database.reading() as session:
            lost = session.scalars(
                select(Study).where(
                    Study.state == StudyState.RUNNING, Study.lease_expires_at <= now
                )
            ).all()
        for study in lost:
            # One more than an instance gets, so that the last one finds the culprit and sets it
            # aside while the others of the study are read.
            given_up = study.attempts > self._rules.most_attempts
            with self._database.writing() as session:
                take_step(
                    session,
                    study.study_key,
                    StudyState.RUNNING,
                    StudyState.FAILED if given_up else StudyState.READY,
                    Step.GAVE_UP if given_up else Step.LEASE_EXPIRED,
                    now,
                    lease_token=study.lease_token,
                    reason=(
                        f"reading the study ended the worker {study.attempts} x"
                        if given_up
                        else None
                    ),
                    conditions=(Study.lease_expires_at <= now,),
                )

    def wake_readers(self) -> None:
        """Ready studies for which nobody was woken, or whose wake-up got lost, are called out."""
        now = self._now()
        with self._database.reading() as session:
            ready = session.execute(
                select(Study.study_key, Study.woken_at)
                .where(
                    Study.state == StudyState.READY,
                    or_(Study.next_attempt_at.is_(None), Study.next_attempt_at <= now),
                )
                .order_by(Study.ready_at, Study.study_key)
                .limit(self._rules.longest_queue)
            ).all()
        if not ready:
            return
        # Where even the length is not to be had, the first wake-up will tell.
        waiting = self._waker.waiting(READING_QUEUE) or 0
        if waiting >= self._rules.longest_queue:
            return
        woken = sum(woken_at is not None for _, woken_at in ready)
        # Fewer messages than studies that wait to be read: the broker lost some, or their worker
        # died with them. Else each has yet to be its turn.
        rules = self._rules
        patience = rules.forgotten_after if waiting < woken else rules.repeated_after
        for study_key, woken_at in ready:
            if woken_at is not None and now - woken_at < patience:
                continue
            if not self._waker.wake_reader(study_key):
                return
            with self._database.writing() as session:
                session.execute(
                    update(Study)
                    .where(Study.study_key == study_key, Study.state == StudyState.READY)
                    .values(woken_at=now)
                )

    def wake_senders(self) -> None:
        """Targets for which something is due, and which nobody is calling, are called out.

        Those that the settings no longer name are left alone.
        """
        now = self._now()
        due = (
            select(Delivery.delivery_key)
            .where(
                Delivery.peer_key == Peer.peer_key,
                Delivery.state.in_(UNSETTLED),
                Delivery.next_attempt_at <= now,
            )
            .exists()
        )
        with self._database.reading() as session:
            peers = session.scalars(
                select(Peer.peer_key).where(
                    due,
                    Peer.configured,
                    or_(Peer.next_attempt_at.is_(None), Peer.next_attempt_at <= now),
                    or_(Peer.lease_token.is_(None), Peer.lease_expires_at <= now),
                    or_(
                        Peer.woken_at.is_(None),
                        Peer.woken_at <= now - self._rules.forgotten_after,
                    ),
                )
            ).all()
        for peer_key in peers:
            if not self._waker.wake_sender(peer_key):
                return
            with self._database.writing() as session:
                session.execute(update(Peer).where(Peer.peer_key == peer_key).values(woken_at=now))

    def set_aside_what_nobody_takes(self) -> None:
        """Results that wait too long for a target of former settings become dead letters."""
        now = self._now()
        waited_too_long = (
            Delivery.peer_key.in_(select(Peer.peer_key).where(~Peer.configured)),
            Delivery.state.in_(UNSETTLED),
            Delivery.created_at <= now - self._rules.give_up_after,
        )
        with self._database.reading() as session:
            studies = session.scalars(
                select(Delivery.study_key).where(*waited_too_long).distinct()
            ).all()
        for study_key in studies:
            with self._database.writing() as session:
                lock_study(session, study_key)
                session.execute(
                    update(Delivery)
                    .where(Delivery.study_key == study_key, *waited_too_long)
                    .values(state=DeliveryState.FAILED, reason=_NOT_NAMED, finished_at=now)
                )
                settle_study(session, study_key, now)

    def settle_what_was_left(self) -> None:
        """Studies whose deliveries are settled are closed, where their sender could not do it."""
        pending = (
            select(Delivery.delivery_key)
            .where(Delivery.study_key == Study.study_key, Delivery.state.in_(UNSETTLED))
            .exists()
        )
        with self._database.reading() as session:
            left = session.scalars(
                select(Study.study_key).where(Study.state == StudyState.DELIVERING, ~pending)
            ).all()
        for study_key in left:
            with self._database.writing() as session:
                settle_study(session, study_key, self._now())

    def ask_for_signs_of_life(self) -> None:
        """Send a heartbeat task through each queue, now and then."""
        now = self._now()
        if self._next_heartbeat is not None and now < self._next_heartbeat:
            return
        self._next_heartbeat = now + self._rules.heartbeat_every
        for queue in QUEUES:
            if not self._waker.ask_for_sign_of_life(queue):
                self._next_heartbeat = now + self._rules.heartbeat_retry
                return
