"""When nothing of a study is left to do, how did it end."""

from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, aliased

from worker.studies import Step, StudyState
from worker.study_steps import take_step
from worker.tables import (
    UNSETTLED,
    Delivery,
    DeliveryState,
    Inference,
    InferenceState,
    Instance,
    Peer,
    Result,
    Study,
)


def settle_study(session: Session, study_key: int, now: datetime) -> bool:
    """Close a study whose last result has been sent or refused.

    Args:
        session: the transaction; what it changed in the deliveries is seen.
        study_key: the study; its row is locked, so that of two targets which finish at the same
            time the second sees what the first did.
        now: the time.

    Returns:
        Whether the study was closed.
    """
    session.flush()
    study = session.scalars(
        select(Study).where(Study.study_key == study_key).with_for_update()
    ).one()
    if study.state is not StudyState.DELIVERING:
        return False
    if is_being_delivered(session, study_key):
        return False
    problem = problem_of(session, study_key)
    return take_step(
        session,
        study_key,
        StudyState.DELIVERING,
        StudyState.FAILED if problem else StudyState.DONE,
        Step.DELIVERY_FAILED if problem else Step.ALL_DELIVERED,
        now,
        reason=problem,
    )


def is_being_delivered(session: Session, study_key: int) -> bool:
    """Whether some target has yet to take a result of the study, or to commit to keep it."""
    unsettled = select(func.count()).where(
        Delivery.study_key == study_key, Delivery.state.in_(UNSETTLED)
    )
    return bool(session.scalar(unsettled))


def problem_of(session: Session, study_key: int) -> str | None:
    """What keeps a study from being done although nothing is left to do; None if nothing does."""
    problems = [
        *_unread(session, study_key),
        *_refused(session, study_key),
        *_taken_nowhere(session, study_key),
    ]
    return "; ".join(problems) or None


def _unread(session: Session, study_key: int) -> list[str]:
    """Films that could not be read, and of which no other model has a reading either."""
    read = aliased(Inference)
    reasons = session.execute(
        select(Inference.reason, func.count())
        .join(Instance)
        .where(
            Instance.study_key == study_key,
            Inference.state == InferenceState.FAILED,
            ~select(read.inference_key)
            .where(
                read.instance_key == Inference.instance_key,
                read.state.in_((InferenceState.READ, InferenceState.REJECTED)),
            )
            .exists(),
        )
        .group_by(Inference.reason)
        .order_by(Inference.reason)
    )
    return [f"{count} x not read: {reason}" for reason, count in reasons]


def _refused(session: Session, study_key: int) -> list[str]:
    rows = session.execute(
        select(Peer.name, Delivery.reason, func.count())
        .join(Delivery, Delivery.peer_key == Peer.peer_key)
        .where(Delivery.study_key == study_key, Delivery.state == DeliveryState.FAILED)
        .group_by(Peer.name, Delivery.reason)
        .order_by(Peer.name, Delivery.reason)
    )
    return [f"{count} x not sent to {peer}: {reason}" for peer, reason, count in rows]


def _taken_nowhere(session: Session, study_key: int) -> list[str]:
    """Targets that took no result at all of some film, because they take none of these kinds."""
    not_taken = func.sum(case((Delivery.state == DeliveryState.NOT_TAKEN, 1), else_=0))
    rows = session.execute(
        select(Peer.name)
        .join(Delivery, Delivery.peer_key == Peer.peer_key)
        .join(Result, Result.result_key == Delivery.result_key)
        .where(Delivery.study_key == study_key)
        .group_by(Peer.name, Result.inference_key)
        .having(not_taken == func.count())
        .distinct()
        .order_by(Peer.name)
    )
    return [f"{name} takes none of the kinds of result" for (name,) in rows]
