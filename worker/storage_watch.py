"""Whether the storage takes instances: told once in the event log when that changes."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.storage import InstanceStore
from worker.clock import utc_now
from worker.database import Database
from worker.events import EventKind, record
from worker.tables import Event

_LOG = logging.getLogger(__name__)
_CHANGES: Final = (EventKind.STORAGE_REFUSES.value, EventKind.STORAGE_TAKES.value)


class StorageWatch:
    """Looks at the storage, and tells of its changes.

    While it takes nothing, each association or instance is refused for the time being; that is
    one event, however often peers call.

    Args:
        database: where the event log is.
        store: what is watched.
        now: the clock.
    """

    def __init__(
        self, database: Database, store: InstanceStore, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
        self._store = store
        self._now = now

    def look(self) -> None:
        """Look once; whether something changed since the last look is asked of the log itself."""
        problem = self._store.disk.problem()
        with self._database.reading() as session:
            refused = last_problem(session)
        if (problem is None) == (refused is None):
            return
        kind = EventKind.STORAGE_TAKES if problem is None else EventKind.STORAGE_REFUSES
        if problem is None:
            _LOG.warning("the storage takes instances again")
        else:
            _LOG.error("the storage takes no instances: %s", problem)
        detail = {"reason": problem, "free_bytes": self._store.disk.free_bytes()}
        with self._database.writing() as session:
            record(session, kind, self._now(), detail=detail)


def last_problem(session: Session) -> str | None:
    """Why the storage took nothing when it was last looked at; None if it did."""
    change = session.scalars(
        select(Event).where(Event.kind.in_(_CHANGES)).order_by(Event.event_key.desc()).limit(1)
    ).one_or_none()
    if change is None or change.kind == EventKind.STORAGE_TAKES.value:
        return None
    return str(change.detail["reason"])


def storage_status(session: Session, store: InstanceStore) -> dict[str, Any]:
    """The storage as JSON values.

    Args:
        session: a transaction.
        store: with the node's low-water mark.
    """
    problem = None if store.disk.has_room() else "free disk space is below the low-water mark"
    return {
        "path": str(store.root),
        "free_bytes": store.disk.free_bytes(),
        "low_water_mark_bytes": store.disk.low_water_mark_bytes,
        "problem": problem or last_problem(session),
    }
