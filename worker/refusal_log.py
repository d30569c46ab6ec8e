"""Refused associations in the logs: the first at once, a flood of them once a minute."""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dicom_io.access_control import AssociationFacts, Refusal
from worker.database import Database
from worker.events import EventKind, record

_LOG = logging.getLogger(__name__)

INTERVAL: Final = timedelta(minutes=1)
REMEMBERED_KINDS: Final = 256


@dataclass
class _Run:
    logged_at: datetime
    unlogged: int = 0


class RefusalLog:
    """Logs refusals by (reason, calling AE title, address), each kind at most once a minute.

    A peer that knocks thousands of times under thousands of names fills neither disk nor memory:
    what goes beyond the kinds remembered is counted under one name.

    Args:
        database: where the event log is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._runs: OrderedDict[tuple[str, str, str], _Run] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, association: AssociationFacts, reason: Refusal, at: datetime) -> None:
        """Count one refusal, and log it if its kind was not logged within the last minute."""
        key = (reason.value, association.calling_ae_title, association.peer_address)
        with self._lock:
            self._forget_old(at)
            if key not in self._runs and len(self._runs) >= REMEMBERED_KINDS:
                key = (reason.value, "(many)", "(many)")
            run = self._runs.get(key)
            if run is not None and at - run.logged_at < INTERVAL:
                run.unlogged += 1
                return
            unlogged = run.unlogged if run is not None else 0
            self._runs[key] = _Run(at)
        _LOG.warning(
            "association refused: %s (calling %s, called %s, from %s; %d before it not logged)",
            key[0],
            key[1],
            association.called_ae_title,
            key[2],
            unlogged,
        )
        with self._database.writing() as session:
            record(
                session,
                EventKind.ASSOCIATION_REFUSED,
                at,
                detail={
                    "reason": key[0],
                    "calling": key[1],
                    "called": association.called_ae_title,
                    "host": key[2],
                    "refused_before_unlogged": unlogged,
                },
            )

    def _forget_old(self, at: datetime) -> None:
        """Drop kinds that have been quiet and have nothing left to tell."""
        for key, run in list(self._runs.items()):
            if at - run.logged_at >= INTERVAL and run.unlogged == 0:
                del self._runs[key]
