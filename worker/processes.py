"""The node's parts that are processes of their own, each in the foreground until it is stopped."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from dicom_io.commitment_service import CommitmentService
from dicom_io.listener import Listener
from dicom_io.storage import InstanceStore
from worker.backoff import Backoff
from worker.clock import utc_now
from worker.commitment_register import DatabaseCommitmentRegister, ReportRules
from worker.connections import listener_configuration, return_address
from worker.database import Database
from worker.embedded_broker import broker_url, prepare_embedded_broker
from worker.intake import DatabaseIntake
from worker.part_log import logged_part
from worker.peers import enter_targets
from worker.periodic import working_beside
from worker.queueing import Waker, create_app
from worker.reconciling import Reconciler, reconcile_quietly
from worker.record_keeping import record_keeping
from worker.settings import Settings
from worker.signs_of_life import EVERY_SECONDS, LISTENER, SWEEPER, show_sign_of_life
from worker.storage_watch import StorageWatch
from worker.sweeping import Sweeper, SweepRules

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS: Final = 0.25
_LISTENER_PAUSE_SECONDS: Final = 1.0
_PAUSES_AFTER_FAILURE: Final = Backoff(first_seconds=1.0, longest_seconds=5.0)


def stop_on_signals() -> threading.Event:
    """An event that is set by SIGTERM and SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def run_listener(settings: Settings, stop: threading.Event) -> None:
    """Take associations until told to stop; then let the open ones finish.

    Raises:
        SettingsError: the address cannot be listened on, or the database has another schema.
        StorageError: the store cannot be written.
    """
    database = _open_database(settings)
    store = InstanceStore(settings.store_directory, settings.low_water_mark_bytes)
    name = f"{socket.gethostname()}:{settings.listener_port}"
    intake = DatabaseIntake(
        database,
        name,
        settings.quiet,
        settings.longest_wait,
        store=store,
    )
    abandoned = intake.close_abandoned_associations()
    if abandoned:
        _LOG.warning("closed %d associations that an earlier listener left open", abandoned)
    commitment = CommitmentService(_commitment_register(settings, database, store, name))
    storage_watch = StorageWatch(database, store)
    reconciliation = threading.Thread(
        target=reconcile_quietly, args=(Reconciler(database, store, intake), stop), daemon=True
    )
    reconciliation.start()
    with (
        logged_part(database, LISTENER),
        commitment,
        Listener(listener_configuration(settings), store, intake, commitment),
    ):
        next_sign = time.monotonic()
        while True:
            try:
                intake.retry_unrecorded()
                if time.monotonic() >= next_sign:
                    show_sign_of_life(database, LISTENER, utc_now())
                    storage_watch.look()
                    next_sign = time.monotonic() + EVERY_SECONDS
            except SQLAlchemyError as cause:
                _LOG.warning("the database is away (%s)", type(cause).__name__)
            if stop.wait(_LISTENER_PAUSE_SECONDS):
                break
    reconciliation.join()
    database.close()


def _commitment_register(
    settings: Settings, database: Database, store: InstanceStore, listener: str
) -> DatabaseCommitmentRegister:
    return DatabaseCommitmentRegister(
        database,
        store,
        listener,
        partial(return_address, settings),
        ReportRules(
            Backoff(settings.retry_seconds, settings.longest_retry_seconds),
            settings.give_up_after,
        ),
    )


def run_sweeper(settings: Settings, stop: threading.Event) -> None:
    """Set going what is due, until told to stop; a database or broker that is away is waited for.

    Raises:
        SettingsError: no broker is named, or the database has another schema.
    """
    database = _open_database(settings)
    with database.writing() as session:
        enter_targets(session, settings.targets)
    waker = Waker(create_app(settings, broker_url(settings)))
    rules = SweepRules(
        most_attempts=settings.most_attempts,
        longest_wait=settings.longest_wait,
        give_up_after=settings.give_up_after,
    )
    sweeper = Sweeper(database, waker, rules)
    store = InstanceStore(settings.store_directory)
    with (
        logged_part(database, SWEEPER),
        working_beside(record_keeping(settings, database, store), stop) as require_working,
    ):
        _sweep_until(stop, sweeper, database, require_working)
    database.close()


def _sweep_until(
    stop: threading.Event,
    sweeper: Sweeper,
    database: Database,
    require_working: Callable[[], None],
) -> None:
    failures = 0
    pause = _SWEEP_SECONDS
    next_sign = time.monotonic()
    while not stop.wait(pause):
        require_working()
        try:
            sweeper.sweep()
            if time.monotonic() >= next_sign:
                show_sign_of_life(database, SWEEPER, utc_now())
                next_sign = time.monotonic() + EVERY_SECONDS
        except SQLAlchemyError as cause:
            if not failures:
                _LOG.warning("the database is away (%s)", type(cause).__name__)
            failures += 1
            pause = _PAUSES_AFTER_FAILURE.pause(failures).total_seconds()
        else:
            if failures:
                _LOG.warning("the database is back")
            failures, pause = 0, _SWEEP_SECONDS


def run_embedded_broker(settings: Settings) -> None:
    """Become the embedded broker; does not return."""
    command = prepare_embedded_broker(settings)
    os.execv(command[0], command)  # noqa: S606 - our own program, no shell wanted


def _open_database(settings: Settings) -> Database:
    database = Database(settings.resolved_database_url)
    database.wait_until_reachable()
    database.require_current_schema()
    return database
