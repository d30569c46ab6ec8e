"""Whether the parts of a running node do what they are there for."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from worker.clock import utc_now
from worker.database import Database
from worker.queueing import DELIVERY_QUEUE, READING_QUEUE
from worker.signs_of_life import LISTENER, SWEEPER, signs_of_life
from worker.studies import StudyState
from worker.tables import Peer, Study

WATCHED_PARTS: Final = frozenset({LISTENER, SWEEPER, READING_QUEUE, DELIVERY_QUEUE})


@dataclass
class NodeWatch:
    """Looks at the node from outside: which parts have shown lately that they work?

    Attributes:
        database: where they show it.
        broker_url: where the workers' tasks come from.
        started: when the node was started; earlier signs of life are not its own.
        silence: so long without a sign of life, and without other work, is no delay.
        now: the clock.
    """

    database: Database
    broker_url: str
    started: datetime
    silence: timedelta = timedelta(seconds=45)  # workers are asked every 10 s
    now: Callable[[], datetime] = utc_now
    _fair_since: datetime | None = None

    def is_ready(self) -> bool:
        """Whether every part has shown that it works, the workers by taking a task."""
        try:
            return set(self._seen()) >= WATCHED_PARTS
        except SQLAlchemyError:
            return False

    def silent_parts(self) -> list[str]:
        """Parts that gave no sign of life for long, though database and broker were there.

        A worker that holds a lease is at work, however long its task takes.
        """
        now = self.now()
        try:
            alive = {*self._busy_queues(now), *self._seen(now - self.silence)}
            fair = self._broker_answers()
        except SQLAlchemyError:
            fair = False
        if not fair:
            self._fair_since = None
            return []
        self._fair_since = self._fair_since or now
        if now - self._fair_since < self.silence:
            return []
        silent = sorted(WATCHED_PARTS - alive)
        if silent:
            self._fair_since = None  # the new process gets its time too
        return silent

    def _seen(self, since: datetime | None = None) -> dict[str, datetime]:
        with self.database.reading() as session:
            return signs_of_life(session, since or self.started)

    def _busy_queues(self, now: datetime) -> set[str]:
        reads = select(Study.study_key).where(
            Study.state == StudyState.RUNNING, Study.lease_expires_at > now
        )
        sends = select(Peer.peer_key).where(
            Peer.lease_token.is_not(None), Peer.lease_expires_at > now
        )
        with self.database.reading() as session:
            return {
                queue
                for queue, held in ((READING_QUEUE, reads), (DELIVERY_QUEUE, sends))
                if session.scalars(held.limit(1)).first() is not None
            }

    def _broker_answers(self) -> bool:
        try:
            with Redis.from_url(
                self.broker_url, socket_connect_timeout=1, socket_timeout=1
            ) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False
