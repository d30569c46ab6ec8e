"""The append-only event log: what happened, when, to which study; never whose study it is."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy.orm import Session

from worker.tables import Event


class EventKind(Enum):
    """What the log tells of."""

    ASSOCIATION_ACCEPTED = "association accepted"
    ASSOCIATION_ENDED = "association ended"
    ASSOCIATION_REFUSED = "association refused"
    INSTANCE_STORED = "instance stored"
    INSTANCE_REPEATED = "instance repeated"
    INSTANCE_CONFLICT = "instance conflict"
    OWN_RESULT_IGNORED = "own result ignored"
    STUDY_STEP = "study step"
    INSTANCE_READ = "instance read"
    INSTANCE_REJECTED = "instance rejected"
    INSTANCE_FAILED = "instance failed"
    RESULT_SENT = "result sent"
    RESULT_REFUSED = "result refused"
    RESULT_SUBSTITUTED = "result substituted"
    RESULT_DAMAGED = "result damaged"
    RESULT_REQUEUED = "result requeued"
    TARGET_UNREACHABLE = "target unreachable"
    RESULT_COMMITTED = "result committed"
    RESULT_NOT_COMMITTED = "result not committed"
    COMMITMENT_REPORTED = "commitment reported"
    COMMITMENT_DROPPED = "commitment dropped"
    FILE_DAMAGED = "file damaged"
    STORAGE_REFUSES = "storage refuses"
    STORAGE_TAKES = "storage takes again"
    STUDY_REMOVED = "study removed"
    FILES_REMOVED = "files removed"
    PART_STARTED = "part started"
    PART_STOPPED = "part stopped"


def record(
    session: Session,
    kind: EventKind,
    at: datetime,
    *,
    study_key: int | None = None,
    association_key: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append to the log, in the transaction of what is told.

    Args:
        session: the transaction.
        kind: what happened.
        at: when.
        study_key: the study that it happened to, if any.
        association_key: the association in which it happened, if any.
        detail: JSON values; UIDs, hashes, states, numbers, and never patient data.
    """
    session.add(
        Event(
            at=at,
            kind=kind.value,
            study_key=study_key,
            association_key=association_key,
            detail=dict(detail or {}),
        )
    )
