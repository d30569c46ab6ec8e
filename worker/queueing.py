"""The queue: a Celery application whose messages wake workers and carry nothing but a key."""

import logging
from typing import Final

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from worker.settings import Settings

_LOG = logging.getLogger(__name__)

READING_QUEUE: Final = "reading"
DELIVERY_QUEUE: Final = "delivery"
QUEUES: Final = (READING_QUEUE, DELIVERY_QUEUE)

READ_STUDY: Final = "multimix.read_study"
DELIVER_TO_PEER: Final = "multimix.deliver_to_peer"
ANSWER_HEARTBEAT: Final = "multimix.answer_heartbeat"

HEARTBEAT_EXPIRES_SECONDS: Final = 60
# The model is loaded before a new process reports that it is up.
_PROCESS_START_SECONDS: Final = 300.0


def create_app(settings: Settings, broker_url: str) -> Celery:
    """A Celery application on the node's broker, without tasks.

    Messages are acknowledged late and only JSON is spoken. That a message is lost or comes twice
    does no harm: the sweeper publishes anew, and the database decides who may work.
    """
    app = Celery("multimix", broker=broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_queues=[Queue(READING_QUEUE), Queue(DELIVERY_QUEUE)],
        task_default_queue=READING_QUEUE,
        task_create_missing_queues=False,
        task_acks_late=True,
        task_track_started=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.reader_processes,
        worker_proc_alive_timeout=_PROCESS_START_SECONDS,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": settings.visibility_timeout_seconds,
            # What a killed worker held comes back when the timeout ends, not minutes after it.
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            # Whoever publishes shall learn at once that the broker is away, and go on.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
        timezone="UTC",
        enable_utc=True,
    )
    return app


class Waker:
    """Publishes wake-ups; a broker that is away costs a log entry and no study.

    Args:
        app: the application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._broker_is_away = False

    def wake_reader(self, study_key: int) -> bool:
        """Ask a worker to read a study; False if the broker is away."""
        return self._publish(READ_STUDY, READING_QUEUE, study_key)

    def wake_sender(self, peer_key: int) -> bool:
        """Ask a worker to send what is due to a target; False if the broker is away."""
        return self._publish(DELIVER_TO_PEER, DELIVERY_QUEUE, peer_key)

    def ask_for_sign_of_life(self, queue: str) -> bool:
        """Send a heartbeat task through a queue; False if the broker is away."""
        return self._publish(ANSWER_HEARTBEAT, queue, expires=HEARTBEAT_EXPIRES_SECONDS)

    def waiting(self, queue: str) -> int | None:
        """How many messages wait in a queue; None if the broker is away."""
        with self._app.connection_or_acquire() as connection:
            away = connection.connection_errors + connection.channel_errors
            try:
                declared = connection.default_channel.queue_declare(queue)
            except (OperationalError, *away):
                return None
        return int(declared.message_count)

    def _publish(
        self, task: str, queue: str, *arguments: int, expires: float | None = None
    ) -> bool:
        try:
            self._app.send_task(
                task,
                args=arguments,
                queue=queue,
                expires=expires,
                retry=False,
                ignore_result=True,
                argsrepr="",
                kwargsrepr="",
            )
        except OperationalError as cause:
            if not self._broker_is_away:
                _LOG.warning("the broker is away (%s); studies wait", type(cause).__name__)
            self._broker_is_away = True
            return False
        if self._broker_is_away:
            _LOG.warning("the broker is back")
        self._broker_is_away = False
        return True
