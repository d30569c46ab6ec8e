"""Refused associations in the logs: the first at once, a flood of them now and then.

Whoever knocks decides how often, under which names and, in a network of its own, from which
addresses. So what is written is bounded by the clock alone: a kind of refusal is told after 0, 1,
3, 7 ... minutes and in the end once an hour, an address has only so many kinds, and all together
have an allowance that grows with time. What goes beyond is counted under one name.
"""

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dicom_io.access_control import AssociationFacts, Refusal
from worker.database import Database
from worker.events import EventKind, record

_LOG = logging.getLogger(__name__)

INTERVAL: Final = timedelta(minutes=1)
LONGEST_INTERVAL: Final = timedelta(hours=1)
REMEMBERED_FOR: Final = 2 * LONGEST_INTERVAL
KINDS_OF_ADDRESS: Final = 8
KINDS_AT_ONCE: Final = 256
MANY: Final = "(many)"

_Kind = tuple[str, str, str]


@dataclass
class _Run:
    """Refusals of one kind: when the last one was told, and what has come since."""

    told_at: datetime
    pause: timedelta = INTERVAL
    untold: int = 0

    def is_due(self, at: datetime) -> bool:
        return at - self.told_at >= self.pause

    def next_pause(self, at: datetime) -> timedelta:
        """Longer while it goes on; as at the beginning after a quiet time."""
        if at - self.told_at >= 2 * self.pause and not self.untold:
            return INTERVAL
        return min(2 * self.pause, LONGEST_INTERVAL)


class RefusalLog:
    """Tells of refusals by reason, calling AE title and address, and of each kind ever less often.

    Args:
        database: where the event log is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._runs: dict[_Kind, _Run] = {}
        self._allowance = float(KINDS_AT_ONCE)
        self._allowance_at: datetime | None = None
        self._lock = threading.Lock()

    def add(self, association: AssociationFacts, reason: Refusal, at: datetime) -> None:
        """Count one refusal, and tell of its kind if that is due."""
        with self._lock:
            forgotten = self._forget_old(at)
            kind = self._kind_of(association, reason, at)
            run = self._runs.get(kind)
            is_due = run is None or run.is_due(at)
            untold = run.untold if run is not None else 0
            if run is not None and not is_due:
                run.untold += 1
            else:
                self._runs[kind] = _Run(at, run.next_pause(at) if run is not None else INTERVAL)
        for (text, calling, host), rest in forgotten:
            _LOG.warning("%d more of: %s (calling %s, from %s)", rest, text, calling, host)
        if is_due:
            self._tell(kind, association.called_ae_title, untold, at)

    def _tell(self, kind: _Kind, called: str, untold: int, at: datetime) -> None:
        reason, calling, host = kind
        _LOG.warning(
            "association refused: %s (calling %s, called %s, from %s; %d before it not logged)",
            reason,
            calling or "nobody yet",
            called or "nobody yet",
            host,
            untold,
        )
        with self._database.writing() as session:
            record(
                session,
                EventKind.ASSOCIATION_REFUSED,
                at,
                detail={
                    "reason": reason,
                    "calling": calling,
                    "called": called,
                    "host": host,
                    "refused_before_unlogged": untold,
                },
            )

    def _kind_of(self, association: AssociationFacts, reason: Refusal, at: datetime) -> _Kind:
        """Under which name a refusal is counted: its own, that of its address, or that of all."""
        host = association.peer_address
        own: _Kind = (reason.value, association.calling_ae_title, host)
        of_address: _Kind = (reason.value, MANY, host)
        if own in self._runs:
            return own
        if sum(known[2] == host for known in self._runs) >= KINDS_OF_ADDRESS:
            own = of_address
        if own in self._runs or self._take_from_allowance(at):
            return own
        return (reason.value, MANY, MANY)

    def _take_from_allowance(self, at: datetime) -> bool:
        """Whether one more kind may be told of; one a minute may, and some more after a pause."""
        minutes = (at - self._allowance_at) / INTERVAL if self._allowance_at is not None else 0.0
        self._allowance = min(self._allowance + max(minutes, 0.0), KINDS_AT_ONCE)
        self._allowance_at = at
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _forget_old(self, at: datetime) -> list[tuple[_Kind, int]]:
        """Drop kinds that nobody knocks with any more; those with something left to tell."""
        old = [kind for kind, run in self._runs.items() if at - run.told_at >= REMEMBERED_FOR]
        dropped = [(kind, self._runs.pop(kind).untold) for kind in old]
        return [(kind, untold) for kind, untold in dropped if untold]
