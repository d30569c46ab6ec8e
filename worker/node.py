"""The whole node in the foreground: ``python -m worker up``."""

import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.errors import SettingsError
from worker.database import PROJECT_ROOT, Database
from worker.embedded_broker import broker_url, prepare_embedded_broker
from worker.intake import utc_now
from worker.queueing import DELIVERY_QUEUE, READING_QUEUE
from worker.settings import PREFIX, Settings
from worker.signs_of_life import LISTENER, SWEEPER, signs_of_life
from worker.studies import StudyState
from worker.supervisor import Part, Supervisor
from worker.tables import Peer, Study

_LOG = logging.getLogger(__name__)

_LOOP_SECONDS: Final = 0.2
_CHECK_SECONDS: Final = 2.0
_MOST_FAILED_STARTS: Final = 3
_WATCHED_PARTS: Final = frozenset({LISTENER, SWEEPER, READING_QUEUE, DELIVERY_QUEUE})
# Heartbeats are sent every 10 s; so long without one, and without other work, is no delay.
_SILENCE: Final = timedelta(seconds=45)


def run_node(settings: Settings, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Run every part of the node until told to stop.

    Args:
        settings: of the node.
        stop: ends it.
        say: is told when the node is ready.

    Raises:
        SettingsError: another node runs in the same home folder, or a part cannot start.
    """
    with _only_node_in(settings):
        database = Database(settings.resolved_database_url)
        database.wait_until_reachable()
        database.upgrade_to_head()
        supervisor = Supervisor(
            parts_of(settings), _child_environment(), stop_seconds=settings.shutdown_seconds
        )
        watch = _Watch(settings, database, utc_now())
        supervisor.start()
        try:
            _supervise(supervisor, watch, settings, stop, say)
        finally:
            supervisor.stop()
            database.close()


def parts_of(settings: Settings) -> list[Part]:
    """The processes of a node, in the order of starting."""
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "--quiet", "-A", "worker", "worker"]
    celery += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    broker = []
    if settings.broker_url is None:
        broker = [Part("broker", prepare_embedded_broker(settings), is_essential_to_others=True)]
    return [
        *broker,
        Part(LISTENER, [*python, "worker", "listen"]),
        Part(SWEEPER, [*python, "worker", "sweep"]),
        Part(
            READING_QUEUE,
            [*celery, *_consumer(READING_QUEUE, settings.reader_processes)],
        ),
        Part(
            DELIVERY_QUEUE,
            [*celery, *_consumer(DELIVERY_QUEUE, settings.sender_processes)],
        ),
    ]


def _consumer(queue: str, processes: int) -> list[str]:
    return ["-Q", queue, "-c", str(processes), "-n", f"{queue}@%h"]


def _supervise(
    supervisor: Supervisor,
    watch: "_Watch",
    settings: Settings,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    ready = False
    next_check = time.monotonic()
    while not stop.wait(_LOOP_SECONDS):
        supervisor.restart_what_ended()
        if not ready:
            _require_startable(supervisor)
        if not ready and watch.is_ready():
            ready = True
            say(
                f"node is ready: {settings.ae_title} takes associations on "
                f"{settings.listener_host}:{settings.listener_port}"
            )
        if ready and time.monotonic() >= next_check:
            next_check = time.monotonic() + _CHECK_SECONDS
            for part in watch.silent_parts():
                _LOG.error("the %s gave no sign of life for long; it is restarted", part)
                supervisor.restart(part)


def _require_startable(supervisor: Supervisor) -> None:
    """Give up a node that cannot start; one that has been ready is kept up whatever happens.

    Raises:
        SettingsError: a part ends again and again.
    """
    for name, failures in supervisor.failures().items():
        if failures >= _MOST_FAILED_STARTS:
            raise SettingsError(
                f"the node cannot start: its {name} ended {failures} x; its log lines say why"
            )


@dataclass
class _Watch:
    """Looks at the node from outside: which parts have shown lately that they work?"""

    settings: Settings
    database: Database
    started: datetime
    _fair_since: datetime | None = None

    def is_ready(self) -> bool:
        """Whether every part has shown that it works, the workers by taking a task."""
        try:
            return set(self._seen()) >= _WATCHED_PARTS
        except SQLAlchemyError:
            return False

    def silent_parts(self) -> list[str]:
        """Parts that gave no sign of life for long, though database and broker were there.

        A worker that holds a lease is at work, however long its task takes.
        """
        now = utc_now()
        try:
            alive = {*self._busy_queues(now), *self._seen(now - _SILENCE)}
            fair = self._broker_answers()
        except SQLAlchemyError:
            fair = False
        if not fair:
            self._fair_since = None
            return []
        self._fair_since = self._fair_since or now
        if now - self._fair_since < _SILENCE:
            return []
        silent = sorted(_WATCHED_PARTS - alive)
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
                broker_url(self.settings), socket_connect_timeout=1, socket_timeout=1
            ) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False


@contextmanager
def _only_node_in(settings: Settings) -> Iterator[None]:
    """Hold the home folder; two nodes in one would take each other's ports and broker."""
    lock = (settings.home / "node.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SettingsError(
            f"another node runs in {settings.home}; stop it, or set {PREFIX}HOME to another folder"
        ) from None
    try:
        yield
    finally:
        lock.close()


def _child_environment() -> dict[str, str]:
    """The children find the program wherever the node was started from."""
    paths = [str(PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
