"""The event log as a hash chain: whoever changes, inserts or removes an entry breaks it.

Writers append entries and go on; the sweeper gives each its place in the chain a moment later, so
that no sender waits for another sender's entry. The SHA-256 of an entry covers what it says and the
hash of its predecessor.

The chain shows every change that was made by someone who did not recompute all that follows. Who
can rewrite the whole database can do so; against that, and against a log that was cut off at its
end, stands a hash of the chain's end that was noted elsewhere.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from worker.audit_tables import EventLink, LogCursor, UnchainedEvent
from worker.database import Database
from worker.tables import Event

BEGINNING: Final = "0" * 64
CHAIN_READER: Final = "chain"
_ROWS_AT_A_TIME: Final = 500


@dataclass(frozen=True)
class ChainReport:
    """What a check of the whole chain found.

    Attributes:
        entries: places in the chain.
        head: hash of the last intact entry; 64 zeros if there is none.
        waiting: entries that have yet to be given their place.
        waiting_since: when the oldest of them was written.
        broken: the first entry that is not what was chained, and why; None if all are.
        noted_head_found: whether the hash that was asked for is in the chain; None without one.
    """

    entries: int
    head: str
    waiting: int
    waiting_since: datetime | None
    broken: str | None
    noted_head_found: bool | None

    @property
    def intact(self) -> bool:
        """Whether nothing speaks against the log."""
        return self.broken is None and self.noted_head_found is not False


def entry_hash(predecessor: str, event: Event) -> str:
    """Hash of an entry in its place.

    Args:
        predecessor: hash of the entry before it, hexadecimal; ``BEGINNING`` for the first.
        event: the entry.

    Returns:
        SHA-256, hexadecimal, of the predecessor's hash and the entry as JSON with sorted keys,
        without blanks, in ASCII; times in UTC with microseconds.
    """
    content = {
        "association_key": event.association_key,
        "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "detail": event.detail,
        "event_key": event.event_key,
        "kind": event.kind,
        "predecessor": predecessor,
        "study_key": event.study_key,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def chain_new_entries(database: Database, most: int = _ROWS_AT_A_TIME) -> int:
    """Give entries that wait their places, oldest first; may be called by several at once.

    Args:
        database: the log.
        most: entries in one transaction.

    Returns:
        How many were chained; ``most`` means that more may be waiting.
    """
    with database.reading() as session:
        if session.scalar(select(UnchainedEvent.event_key).limit(1)) is None:
            return 0
    with database.writing() as session:
        # The row of the chain's end is its lock: others who chain wait here, writers never do.
        end = session.scalars(
            select(LogCursor).where(LogCursor.reader == CHAIN_READER).with_for_update()
        ).one()
        head = session.scalar(select(EventLink.sha256).where(EventLink.position == end.position))
        events = session.scalars(
            select(Event)
            .join(UnchainedEvent, UnchainedEvent.event_key == Event.event_key)
            .order_by(Event.event_key)
            .limit(most)
        ).all()
        links = []
        for position, event in enumerate(events, start=end.position + 1):
            head = entry_hash(head or BEGINNING, event)
            links.append({"position": position, "event_key": event.event_key, "sha256": head})
        if links:
            session.execute(insert(EventLink), links)
            keys = [event.event_key for event in events]
            session.execute(delete(UnchainedEvent).where(UnchainedEvent.event_key.in_(keys)))
            end.position += len(links)
    return len(links)


def verify_chain(session: Session, noted_head: str | None = None) -> ChainReport:
    """Recompute the whole chain.

    Args:
        session: a transaction.
        noted_head: a hash that was once the chain's end, noted where nobody could change it.

    Returns:
        What was found. The check ends at the first broken entry.
    """
    head, entries, broken = BEGINNING, 0, None
    noted_head_found = None if noted_head is None else noted_head == BEGINNING
    rows = session.execute(
        select(EventLink, Event)
        .outerjoin(Event, Event.event_key == EventLink.event_key)
        .order_by(EventLink.position),
        execution_options={"yield_per": _ROWS_AT_A_TIME},
    )
    for link, event in rows:
        broken = _problem_of(link, event, entries + 1, head)
        if broken is not None:
            break
        entries, head = entries + 1, link.sha256
        noted_head_found = noted_head_found or (None if noted_head is None else head == noted_head)
    rows.close()
    broken = broken or _cut_off(session, entries) or _never_chained(session)
    waiting, waiting_since = session.execute(
        select(func.count(), func.min(Event.at)).join(
            UnchainedEvent, UnchainedEvent.event_key == Event.event_key
        )
    ).one()
    return ChainReport(entries, head, waiting, waiting_since, broken, noted_head_found)


def _problem_of(link: EventLink, event: Event | None, expected: int, head: str) -> str | None:
    """What is wrong with one place of the chain."""
    if link.position != expected:
        return f"entry {expected} is missing; entry {link.position} follows instead"
    if event is None:
        return f"entry {expected} (event {link.event_key}) is gone from the log"
    if entry_hash(head, event) != link.sha256:
        return f"entry {expected} (event {link.event_key}) is not what was logged"
    return None


def _cut_off(session: Session, entries: int) -> str | None:
    """Whether places at the chain's end are missing."""
    end = session.scalar(select(LogCursor.position).where(LogCursor.reader == CHAIN_READER))
    if end is None:
        return "the chain's end is not noted any more"
    chained = session.scalar(select(func.count()).select_from(EventLink))
    return f"entry {entries + 1} is missing; the chain is cut off" if (chained or 0) < end else None


def _never_chained(session: Session) -> str | None:
    """The first entry that neither has a place in the chain nor waits for one."""
    event_key = session.scalar(
        select(func.min(Event.event_key))
        .outerjoin(EventLink, EventLink.event_key == Event.event_key)
        .outerjoin(UnchainedEvent, UnchainedEvent.event_key == Event.event_key)
        .where(EventLink.event_key.is_(None), UnchainedEvent.event_key.is_(None))
    )
    return None if event_key is None else f"event {event_key} was never chained"
