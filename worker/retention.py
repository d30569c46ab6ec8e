"""Originals and results are kept for a set time, or up to a set size; then the oldest go first.

Only what is finished goes: studies that are done or rejected. What failed, waits or is being sent
stays until somebody has seen to it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Exists, func, select
from sqlalchemy.orm import Session

from worker.database import Database
from worker.removal import remove_study
from worker.studies import Step, StudyState
from worker.tables import (
    UNSETTLED,
    Delivery,
    FileToRemove,
    Instance,
    InstanceConflict,
    Result,
    Study,
)

FINISHED = (StudyState.DONE, StudyState.REJECTED)


@dataclass(frozen=True)
class RetentionRules:
    """How long, and how much.

    Attributes:
        keep_for: since a study was finished; None for ever.
        keep_bytes: of originals and results; None for as much as there is room for.
        studies_at_a_time: most studies in one batch, each in a transaction of its own.
    """

    keep_for: timedelta | None
    keep_bytes: int | None
    studies_at_a_time: int = 20


@dataclass(frozen=True)
class Held:
    """What the node holds.

    Attributes:
        studies: that have files.
        bytes_held: of their originals, conflicts and results.
        oldest_finished_at: when the one was finished that would go first; None if none may.
        files_to_remove: noted for deletion and still there.
    """

    studies: int
    bytes_held: int
    oldest_finished_at: datetime | None
    files_to_remove: int


def held(session: Session) -> Held:
    """Sum up what the node holds."""
    studies = session.scalar(
        select(func.count()).select_from(Study).where(Study.state != StudyState.REMOVED)
    )
    oldest = session.scalar(select(func.min(Study.finished_at)).where(Study.state.in_(FINISHED)))
    waiting = session.scalar(select(func.count()).select_from(FileToRemove))
    return Held(studies or 0, _bytes_held(session), oldest, waiting or 0)


def remove_expired(database: Database, rules: RetentionRules, now: datetime) -> int:
    """Remove the studies whose time is over, and the oldest beyond the set size.

    Args:
        database: where they are; their files are noted for deletion.
        rules: how long, and how much.
        now: the time.

    Returns:
        How many were removed; ``rules.studies_at_a_time`` means that more may be due.
    """
    removed = 0
    with database.reading() as session:
        excess = 0
        if rules.keep_bytes is not None:
            excess = _bytes_held(session) - rules.keep_bytes
        oldest = session.scalars(
            select(Study)
            .where(Study.state.in_(FINISHED), Study.finished_at.is_not(None), ~_undelivered())
            .order_by(Study.finished_at, Study.study_key)
            .limit(rules.studies_at_a_time)
        ).all()
    for study in oldest:
        assert study.finished_at is not None
        too_old = rules.keep_for is not None and study.finished_at + rules.keep_for <= now
        if not too_old and excess <= 0:
            break
        reason = "its time was over" if too_old else "the node held more than it may"
        gone = _remove_finished(database, study, reason, now)
        if gone is not None:
            removed += 1
            excess -= gone
    return removed


def _remove_finished(database: Database, found: Study, reason: str, now: datetime) -> int | None:
    """Remove a study if it still stands as it was found; its bytes, or None."""
    with database.writing() as session:
        study = session.scalars(
            select(Study)
            .where(
                Study.study_key == found.study_key,
                Study.state.in_(FINISHED),
                Study.finished_at == found.finished_at,
                ~_undelivered(),
            )
            .with_for_update()
        ).one_or_none()
        if study is None:
            return None
        return remove_study(
            session, study, Step.EXPIRED, now, reason=f"deleted by retention: {reason}"
        )


def _undelivered() -> Exists:
    return (
        select(Delivery.delivery_key)
        .where(Delivery.study_key == Study.study_key, Delivery.state.in_(UNSETTLED))
        .exists()
    )


def _bytes_held(session: Session) -> int:
    return sum(
        int(session.scalar(select(func.sum(column))) or 0)  # PostgreSQL's sum is a Decimal
        for column in (Instance.size, InstanceConflict.size, Result.size)
    )
