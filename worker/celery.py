"""The Celery application of the node: ``celery -A worker worker``.

Reads both queues, or one of them with ``-Q reading`` or ``-Q delivery``. Messages carry a key of
the database and nothing else.
"""

import logging
import os
import signal
import warnings
from typing import Any

from celery import Task, signals
from celery.exceptions import SecurityWarning

from dicom_io.errors import MultiMixError
from worker.embedded_broker import broker_url
from worker.logs import configure_logging
from worker.parent_death import end_with_parent
from worker.queueing import (
    ANSWER_HEARTBEAT,
    DELIVER_TO_PEER,
    READ_STUDY,
    READING_QUEUE,
    Waker,
    create_app,
)
from worker.settings_loading import load_settings
from worker.worker_process import WorkerProcess

_LOG = logging.getLogger(__name__)
# A task that is about to be killed has this long to count the attempt and hand its study back.
_SECONDS_TO_HAND_BACK = 5

# Celery warns root of messages that run code; ours are JSON and name tasks of this module only.
warnings.filterwarnings("ignore", category=SecurityWarning)

settings = load_settings()
app = create_app(settings, broker_url(settings))
waker = Waker(app)
_opened: list[WorkerProcess] = []


def worker_process() -> WorkerProcess:
    """What this process works with; opened at the first call."""
    if not _opened:
        _opened.append(WorkerProcess(settings, reads=READING_QUEUE in _queues()))
    return _opened[0]


def read_study(study_key: int) -> None:
    """Read a study and wake the senders of its results."""
    for peer_key in worker_process().read_study(study_key):
        waker.wake_sender(peer_key)


def deliver_to_peer(peer_key: int) -> None:
    """Send what is due to a target."""
    worker_process().deliver_to(peer_key)


def answer_heartbeat(task: Task) -> None:
    """Show that tasks of a queue are being taken."""
    worker_process().answer_heartbeat(task.request.delivery_info["routing_key"])


def set_up_logging(**_: Any) -> None:
    """Log as the other parts do, instead of as Celery does."""
    configure_logging(settings, "-".join(sorted(_queues())))


def open_process(**_: Any) -> None:
    """Open what the process works with; where that fails, the whole worker ends and says why."""
    parent = os.getppid()
    end_with_parent(parent, signal.SIGKILL)
    os.umask(0o077)
    try:
        worker_process()
    except MultiMixError as cause:
        _LOG.critical("the worker cannot start: %s", cause)
        os.kill(parent, signal.SIGTERM)
    except Exception:
        os.kill(parent, signal.SIGTERM)
        raise


def _queues() -> list[str]:
    """The queues that this worker consumes."""
    return list(app.amqp.queues.consume_from)


app.task(
    name=READ_STUDY,
    time_limit=settings.reading_time_limit_seconds,
    soft_time_limit=max(1, settings.reading_time_limit_seconds - _SECONDS_TO_HAND_BACK),
)(read_study)
app.task(name=DELIVER_TO_PEER)(deliver_to_peer)
app.task(name=ANSWER_HEARTBEAT, bind=True)(answer_heartbeat)
signals.setup_logging.connect(set_up_logging)
signals.worker_process_init.connect(open_process)
