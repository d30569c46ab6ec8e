"""The event log is told to an audit record repository, in order, nothing left out.

A cursor in the database says how far; it moves on when a batch has been taken. A repository that is
away delays nothing and loses nothing; one that breaks off within a batch gets that batch again.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import select, update

from worker.atna_events import ThisNode, messages_of
from worker.atna_messages import AuditMessage, Outcome, as_xml
from worker.audit import entries_after
from worker.audit_chain import CHAIN_READER
from worker.audit_tables import LogCursor
from worker.database import Database, insert_if_absent
from worker.syslog import NOTICE, WARNING, syslog_message

READER: Final = "atna"
_MESSAGE_ID: Final = "DICOM+RFC3881"  # PS3.15 A.6
_APPLICATION: Final = "multimix"

Send = Callable[[Sequence[bytes]], None]


def forward_batch(database: Database, send: Send, node: ThisNode, most: int = 200) -> bool:
    """Tell the repository what was logged since the last batch.

    The first call only notes where the log ends: what happened before is not told.

    Args:
        database: the log.
        send: takes syslog messages; raises where they were not taken.
        node: who tells.
        most: entries of the log in one batch.

    Returns:
        Whether more is waiting.

    Raises:
        MultiMixError: the repository did not take the batch.
    """
    position = _position(database)
    with database.reading() as session:
        entries = entries_after(session, position, most)
        messages = [message for entry in entries for message in messages_of(session, entry, node)]
    if not entries:
        return False
    if messages:
        send([_as_syslog(message, node) for message in messages])
    done = entries[-1].position
    with database.writing() as session:
        session.execute(
            update(LogCursor)
            .where(LogCursor.reader == READER, LogCursor.position == position)
            .values(position=done)
        )
    return len(entries) == most


def _position(database: Database) -> int:
    found = select(LogCursor.position).where(LogCursor.reader == READER)
    with database.reading() as session:
        position = session.scalar(found)
    if position is not None:
        return position
    with database.writing() as session:
        end = session.scalar(select(LogCursor.position).where(LogCursor.reader == CHAIN_READER))
        insert_if_absent(session, LogCursor, reader=READER, position=end or 0)
        return session.scalars(found).one()


def _as_syslog(message: AuditMessage, node: ThisNode) -> bytes:
    return syslog_message(
        as_xml(message, node.ae_title),
        at=message.at,
        host=node.host,
        application=_APPLICATION,
        process=os.getpid(),
        message_id=_MESSAGE_ID,
        severity=NOTICE if message.outcome is Outcome.SUCCESS else WARNING,
    )
