"""The tables that make the event log tamper-evident and let others read it in order.

The order of the log is the order of its chain: keys of events are given out when an entry is
written and may be committed in another order; positions in the chain have neither gaps nor
latecomers.
"""

from sqlalchemy import BigInteger, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from worker.columns import Table

_BIG_KEY = BigInteger().with_variant(Integer, "sqlite")


class EventLink(Table):
    """The place of one entry in the hash chain; a trigger refuses to change or delete it.

    Attributes:
        position: from 1, without gaps.
        event_key: the entry.
        sha256: of the entry and its predecessor's hash, ``worker.audit_chain.entry_hash``.
    """

    __tablename__ = "event_links"

    position: Mapped[int] = mapped_column(_BIG_KEY, primary_key=True, autoincrement=False)
    event_key: Mapped[int] = mapped_column(_BIG_KEY, unique=True)
    sha256: Mapped[str] = mapped_column(String(64))


class UnchainedEvent(Table):
    """An entry that waits for its place in the chain; a trigger adds it with the entry."""

    __tablename__ = "unchained_events"

    event_key: Mapped[int] = mapped_column(_BIG_KEY, primary_key=True, autoincrement=False)


class LogCursor(Table):
    """How far a reader of the chain has come.

    Attributes:
        reader: who reads; ``chain`` is the chain's own end.
        position: of the last entry that it is done with; 0 before the first.
    """

    __tablename__ = "log_cursors"

    reader: Mapped[str] = mapped_column(String(32), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
