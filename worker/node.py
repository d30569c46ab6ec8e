"""The whole node in the foreground: ``python -m worker up``."""

import fcntl
import logging
import os
import socket
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
from worker.queueing import DELIVERY_QUEUE, QUEUES, READING_QUEUE
from worker.settings import PREFIX, Settings
from worker.studies import StudyState
from worker.supervisor import Part, Supervisor
from worker.tables import Peer, QueueHeartbeat, Study

_LOG = logging.getLogger(__name__)

_LOOP_SECONDS: Final = 0.2
_CHECK_SECONDS: Final = 2.0
# Heartbeats are sent every 10 s; so long without one, and without other work, is no delay.
_SILENCE: Final = timedelta(seconds=45)


def run_node(settings: Settings, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Run every part of the node until told to stop.

    Args:
        settings: of the node.
        stop: ends it.
        say: is told when the node is ready.

    Raises:
        SettingsError: another node runs in the same home folder.
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
        Part("listener", [*python, "worker", "listen"]),
        Part("sweeper", [*python, "worker", "sweep"]),
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
        if not ready and watch.is_ready():
            ready = True
            say(
                f"node is ready: {settings.ae_title} takes associations on "
                f"{settings.listener_host}:{settings.listener_port}"
            )
        if ready and time.monotonic() >= next_check:
            next_check = time.monotonic() + _CHECK_SECONDS
            for queue in watch.silent_queues():
                _LOG.error("nobody takes tasks from the queue %s; its worker is restarted", queue)
                supervisor.restart(queue)


@dataclass
class _Watch:
    """Looks at the node from outside: does it take associations, and tasks from its queues?"""

    settings: Settings
    database: Database
    started: datetime
    broker_answers_since: datetime | None = None

    def is_ready(self) -> bool:
        """Whether associations are taken, and every queue's worker has shown that it works."""
        try:
            return set(self._heartbeats()) >= set(QUEUES) and self._listens()
        except SQLAlchemyError:
            return False

    def silent_queues(self) -> list[str]:
        """Queues from which no task was taken for long, though the broker is there.

        A worker that still holds a lease is at work, however long its task takes.
        """
        now = utc_now()
        if not self._broker_answers():
            self.broker_answers_since = None
            return []
        if self.broker_answers_since is None:
            self.broker_answers_since = now
        if now - self.broker_answers_since < _SILENCE:
            return []
        try:
            seen, busy = self._heartbeats(), self._busy_queues(now)
        except SQLAlchemyError:
            return []
        silent = [
            queue
            for queue in QUEUES
            if queue not in busy and now - seen.get(queue, self.started) > _SILENCE
        ]
        if silent:
            self.broker_answers_since = None  # the new worker gets its time too
        return silent

    def _heartbeats(self) -> dict[str, datetime]:
        """When each queue's last heartbeat task was taken, since this node started."""
        with self.database.reading() as session:
            rows = session.scalars(
                select(QueueHeartbeat).where(QueueHeartbeat.seen_at >= self.started)
            )
            return {row.queue: row.seen_at for row in rows}

    def _busy_queues(self, now: datetime) -> set[str]:
        with self.database.reading() as session:
            reads = session.scalars(
                select(Study.study_key).where(
                    Study.state == StudyState.RUNNING, Study.lease_expires_at > now
                )
            ).first()
            sends = session.scalars(
                select(Peer.peer_key).where(
                    Peer.lease_token.is_not(None), Peer.lease_expires_at > now
                )
            ).first()
        return {
            queue
            for queue, found in ((READING_QUEUE, reads), (DELIVERY_QUEUE, sends))
            if found is not None
        }

    def _broker_answers(self) -> bool:
        try:
            with Redis.from_url(
                broker_url(self.settings), socket_connect_timeout=1, socket_timeout=1
            ) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def _listens(self) -> bool:
        host = self.settings.listener_host
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        try:
            with socket.create_connection((reachable, self.settings.listener_port), timeout=1):
                return True
        except OSError:
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
