"""Each part of the node shows in the database that it works, so that one that hangs is noticed."""

import os
import socket
from datetime import datetime
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from worker.database import Database, insert_if_absent
from worker.tables import PartHeartbeat

LISTENER: Final = "listener"
SWEEPER: Final = "sweeper"
EVERY_SECONDS: Final = 5.0
_OPENING: Final = " opening"


def opening(queue: str) -> str:
    """The part as which a process of a worker shows that it opens, which may take a while."""
    return queue + _OPENING


def show_sign_of_life(database: Database, part: str, now: datetime) -> None:
    """Note that a part works just now.

    Args:
        database: where it is noted.
        part: ``LISTENER``, ``SWEEPER``, the queue from which a task was taken, or its ``opening``.
        now: the time.
    """
    seen = {"seen_at": now, "host": socket.gethostname(), "process": os.getpid()}
    with database.writing() as session:
        if not insert_if_absent(session, PartHeartbeat, part=part, **seen):
            session.execute(update(PartHeartbeat).where(PartHeartbeat.part == part).values(**seen))


def parts_at_work(session: Session) -> dict[str, datetime]:
    """When each part was last seen that shows itself as long as it works; opening ends."""
    rows = session.scalars(select(PartHeartbeat).order_by(PartHeartbeat.part))
    return {row.part: row.seen_at for row in rows if not row.part.endswith(_OPENING)}


def signs_of_life(session: Session, since: datetime) -> dict[str, datetime]:
    """When each part was last seen, of those seen since then."""
    rows = session.scalars(select(PartHeartbeat).where(PartHeartbeat.seen_at >= since))
    return {row.part: row.seen_at for row in rows}
