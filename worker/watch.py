"""Whether the parts of a running node do what they are there for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from worker.clock import utc_now
from worker.database import Database
from worker.queueing import DELIVERY_QUEUE, READING_QUEUE
from worker.signs_of_life import LISTENER, SWEEPER, opening, signs_of_life
from worker.studies import StudyState
from worker.tables import Peer, Study

# How long a part may say nothing. A worker is asked every few seconds, and its end costs nothing:
# what it held is taken back. The end of a listener aborts the associations that are open.
_SILENCE: Final = {
    LISTENER: timedelta(seconds=45),
    SWEEPER: timedelta(seconds=45),
    READING_QUEUE: timedelta(seconds=15),
    DELIVERY_QUEUE: timedelta(seconds=15),
}
_MOST_DOUBLINGS: Final = 4
WATCHED_PARTS: Final = frozenset(_SILENCE)


@dataclass
class NodeWatch:
    """Looks at the node from outside: which parts have shown lately that they work?

    Attributes:
        database: where they show it.
        broker_url: where the workers' tasks come from.
        started: when the node was started; earlier signs of life are not its own.
        starting: so long a process may take from its start to its first sign of life; twice as long
            after each that was ended for having taken longer, so that a machine with too much to
            do gets it started in the end.
        now: the clock.
    """

    database: Database
    broker_url: str
    started: datetime
    starting: timedelta = timedelta(seconds=60)
    now: Callable[[], datetime] = utc_now
    _fair_since: datetime | None = None
    _late_starts: dict[str, int] = field(default_factory=dict)
    _busy_at: dict[str, datetime] = field(default_factory=dict)

    def is_ready(self) -> bool:
        """Whether every part has shown that it works, the workers by taking a task."""
        try:
            return set(self._seen()) >= WATCHED_PARTS
        except SQLAlchemyError:
            return False

    def silent_parts(self, changed: Mapping[str, datetime]) -> list[str]:
        """Parts that gave no sign of life for long, though database and broker were there.

        A worker that holds a lease is at work, however long its task takes. Its silence begins when
        the lease ends: where a task was ended with its process, the next one has yet to open.

        Args:
            changed: when the present process of each part was started, or the last one ended.
        """
        now = self.now()
        try:
            self._busy_at |= dict.fromkeys(self._busy_queues(now), now)
            seen = self._seen()
            fair = self._broker_answers()
        except SQLAlchemyError:
            fair = False
        if not fair:
            self._fair_since = None
            return []
        fair_since = self._fair_since = self._fair_since or now

        def is_silent(part: str) -> bool:
            worked, began = seen.get(part, self.started), changed.get(part, self.started)
            # A process of a worker that died is replaced, and opens, without the worker ending.
            opened = seen.get(opening(part), self.started)
            works = worked >= max(began, opened)
            if works:
                self._late_starts.pop(part, None)
            late = self._late_starts.get(part, 0)
            patience = _SILENCE[part] if works else self.starting * 2**late
            busy = self._busy_at.get(part, self.started)
            silent = now - max(worked, opened, began, busy, fair_since) >= patience
            if silent and not works:
                self._late_starts[part] = min(late + 1, _MOST_DOUBLINGS)
            return silent

        return sorted(part for part in WATCHED_PARTS if is_silent(part))

    def _seen(self) -> dict[str, datetime]:
        with self.database.reading() as session:
            return signs_of_life(session, self.started)

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
