"""The start and the end of a part of the node, in the event log."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from worker.clock import utc_now
from worker.database import Database
from worker.events import EventKind, record

_LOG = logging.getLogger(__name__)


@contextmanager
def logged_part(database: Database, part: str) -> Iterator[None]:
    """Note that a part has started, and that it has stopped; one that was killed says no more."""
    _note(database, EventKind.PART_STARTED, part)
    try:
        yield
    finally:
        try:
            _note(database, EventKind.PART_STOPPED, part)
        except SQLAlchemyError as cause:
            _LOG.warning("the end of the %s is not logged (%s)", part, type(cause).__name__)


def _note(database: Database, kind: EventKind, part: str) -> None:
    detail = {"part": part, "host": socket.gethostname(), "process": os.getpid()}
    with database.writing() as session:
        record(session, kind, utc_now(), detail=detail)
