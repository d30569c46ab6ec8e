"""The whole node in the foreground: ``python -m worker up``."""

import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dicom_io.errors import SettingsError
from worker.clock import utc_now
from worker.database import PROJECT_ROOT, Database
from worker.embedded_broker import broker_url, prepare_embedded_broker
from worker.queueing import DELIVERY_QUEUE, READING_QUEUE
from worker.settings import PREFIX, Settings
from worker.signs_of_life import LISTENER, SWEEPER
from worker.supervisor import Part, Supervisor
from worker.watch import NodeWatch

_LOG = logging.getLogger(__name__)

_LOOP_SECONDS: Final = 0.2
_CHECK_SECONDS: Final = 1.0
_MOST_FAILED_STARTS: Final = 3


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
        watch = NodeWatch(database, broker_url(settings), started=utc_now())
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
    watch: NodeWatch,
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
            for part in watch.silent_parts(supervisor.last_changes()):
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
