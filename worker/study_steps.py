"""Steps of a study's state machine as conditional updates: taken whole, once, or not at all."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, or_, update
from sqlalchemy.orm import Session

from worker.columns import REASON_LENGTH
from worker.events import EventKind, record
from worker.studies import Step, StudyState, require_drawn
from worker.tables import Study

FINAL_STATES = frozenset({StudyState.DONE, StudyState.FAILED, StudyState.REJECTED})


@dataclass(frozen=True)
class StudyLease:
    """The right to work on a study.

    Attributes:
        study_key: the study.
        revision: of the study when it was claimed.
        token: proof of the claim.
    """

    study_key: int
    revision: int
    token: str


def take_step(
    session: Session,
    study_key: int,
    source: StudyState,
    target: StudyState,
    step: Step,
    at: datetime,
    *,
    lease_token: str | None = None,
    reason: str | None = None,
    changes: Mapping[str, Any] | None = None,
    conditions: tuple[Any, ...] = (),
) -> bool:
    """Take one step of a study, if it still stands where the caller believes it to stand.

    Args:
        session: the transaction; the event of the step is written in it too.
        study_key: the study.
        source: where the study stands.
        target: where it goes.
        step: why.
        at: when.
        lease_token: the lease under which the step is taken; needed to leave ``running`` as its
            worker.
        reason: what the operator is told.
        changes: further columns of the study to set.
        conditions: further conditions on the study.

    Returns:
        Whether the step was taken; False means that the study has moved on in between.

    Raises:
        IllegalTransition: the state machine draws no such step.
    """
    require_drawn(source, target, step)
    values: dict[str, Any] = {
        "state": target,
        "lease_token": None,
        "lease_expires_at": None,
        "reason": reason[:REASON_LENGTH] if reason else None,
        "finished_at": at if target in FINAL_STATES else None,
        **(changes or {}),
    }
    where = [Study.study_key == study_key, Study.state == source, *conditions]
    if lease_token is not None:
        where.append(Study.lease_token == lease_token)
    taken = session.execute(
        update(Study).where(*where).values(values).returning(Study.revision)
    ).scalar_one_or_none()
    if taken is None:
        return False
    detail = {
        "source": source.value,
        "target": target.value,
        "step": step.name.lower(),
        "revision": taken,
    }
    if values["reason"]:
        detail["reason"] = values["reason"]
    record(session, EventKind.STUDY_STEP, at, study_key=study_key, detail=detail)
    return True


def claim(session: Session, study_key: int, at: datetime, lease: timedelta) -> StudyLease | None:
    """Claim a ready study; the attempt is counted before any work is done.

    Returns:
        The lease, or None if the study is not ready, not due, or another worker was faster.
    """
    token = str(uuid.uuid4())
    taken = take_step(
        session,
        study_key,
        StudyState.READY,
        StudyState.RUNNING,
        Step.CLAIMED,
        at,
        changes={
            "lease_token": token,
            "lease_expires_at": at + lease,
            "attempts": Study.attempts + 1,
            "woken_at": None,
        },
        conditions=(or_(Study.next_attempt_at.is_(None), Study.next_attempt_at <= at),),
    )
    if not taken:
        return None
    return StudyLease(study_key, session.get_one(Study, study_key).revision, token)


def renew(session: Session, lease: StudyLease, until: datetime) -> bool:
    """Give a sign of life: the lease holds until then.

    Returns:
        Whether the lease was still held.
    """
    return change_under_lease(session, lease, lease_expires_at=until)


def change_under_lease(session: Session, lease: StudyLease, **changes: Any) -> bool:
    """Change columns of a study that the lease holds.

    Returns:
        Whether the lease was still held; else nothing has changed.
    """
    done = session.execute(
        update(Study)
        .where(
            Study.study_key == lease.study_key,
            Study.state == StudyState.RUNNING,
            Study.lease_token == lease.token,
        )
        .values(**changes)
    )
    assert isinstance(done, CursorResult)
    return done.rowcount == 1
