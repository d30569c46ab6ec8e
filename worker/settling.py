"""When nothing of a study is left to do, how did it end."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import case, exists, func, select
from sqlalchemy.orm import Session, aliased

from worker.results import inference_counts, reasons_without_result
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

_STEPS: Final = {
    StudyState.DONE: Step.ALL_DELIVERED,
    StudyState.FAILED: Step.DELIVERY_FAILED,
    StudyState.REJECTED: Step.NOTHING_ELIGIBLE,
}


@dataclass(frozen=True)
class Ending:
    """How a study ends of which nothing is left to do.

    Attributes:
        state: done, failed or rejected.
        reason: what the operator is told; None of a study that is done.
    """

    state: StudyState
    reason: str | None


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
    if study.state is not StudyState.DELIVERING or is_on_its_way(session, study_key):
        return False
    ending = ending_of(session, study_key, _latest_model(session, study_key))
    return take_step(
        session,
        study_key,
        StudyState.DELIVERING,
        ending.state,
        _STEPS[ending.state],
        now,
        reason=ending.reason,
    )


def is_on_its_way(session: Session, study_key: int) -> bool:
    """Whether a result of a study waits to be sent or committed to, whichever model made it."""
    unsettled = exists().where(Delivery.study_key == study_key, Delivery.state.in_(UNSETTLED))
    return bool(session.scalar(select(unsettled)))


def ending_of(session: Session, study_key: int, model_key: int) -> Ending:
    """How a study ends of which nothing is left to read, and nothing is on its way.

    Args:
        session: the transaction.
        study_key: the study.
        model_key: the model that read it last. A study of which it has no result is not done, also
            where targets have results of older models.

    Returns:
        Failed where a film could not be read or a target lacks a result, with what keeps the study
        from being done; else rejected or done.
    """
    counts = inference_counts(session, study_key, model_key)
    unsent = [*_refused(session, study_key), *_taken_nowhere(session, study_key)]
    if not counts.get(InferenceState.READ):
        reasons = [*reasons_without_result(session, study_key, model_key), *unsent]
        failed = bool(counts.get(InferenceState.FAILED) or unsent)
        return Ending(StudyState.FAILED if failed else StudyState.REJECTED, "; ".join(reasons))
    problems = [*_unread(session, study_key), *unsent]
    if problems:
        return Ending(StudyState.FAILED, "; ".join(problems))
    return Ending(StudyState.DONE, None)


def _latest_model(session: Session, study_key: int) -> int:
    """The model that was the last to take up a film of a study that has results."""
    return session.scalars(
        select(Inference.model_key)
        .join(Instance)
        .where(Instance.study_key == study_key)
        .order_by(Inference.inference_key.desc())
        .limit(1)
    ).one()


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
