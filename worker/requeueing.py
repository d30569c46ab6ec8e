"""An operator's second chance: what failed or was rejected is tried again from where it stopped."""

from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from dicom_io.errors import IllegalTransition, MultiMixError
from worker.events import EventKind, record
from worker.studies import Step, StudyState
from worker.study_steps import FINAL_STATES, take_step
from worker.tables import Delivery, DeliveryState, Inference, InferenceState, Instance, Peer, Study

_WITHOUT_RESULT = (InferenceState.STARTED, InferenceState.REJECTED, InferenceState.FAILED)
_NOT_SENT = (DeliveryState.FAILED, DeliveryState.NOT_TAKEN, DeliveryState.TARGET_REMOVED)


def requeue_study(session: Session, study_key: int, now: datetime) -> StudyState:
    """Try a study again: its dead letters where only these are left, else also its reading.

    Films that have results keep them, unless another model reads the study now. Dead letters to a
    target that the settings no longer name are given up, until it is named and this asked again.

    Args:
        session: the transaction.
        study_key: the study.
        now: the time.

    Returns:
        The state in which the study is now.

    Raises:
        IllegalTransition: the study is still at work, or holds nothing that could be read.
    """
    study = session.scalars(
        select(Study).where(Study.study_key == study_key).with_for_update()
    ).one()
    if study.state is StudyState.REMOVED:
        raise IllegalTransition(f"the files of study {study.study_uid} are deleted; send it again")
    if study.state not in FINAL_STATES:
        raise IllegalTransition(
            f"study {study.study_uid} is {study.state.value}; it is still at work"
        )
    if study.study_uid is None:
        raise IllegalTransition(
            f"object no. {study_key} names no study and cannot be read ({study.reason}); "
            "send it again with all its UIDs"
        )
    settled_anew = _requeue_deliveries(session, study_key, now)
    unread = _forget_attempts(session, study_key)
    only_deliveries = bool(settled_anew) and not unread and study.state is StudyState.FAILED
    target = StudyState.DELIVERING if only_deliveries else StudyState.READY
    take_step(
        session,
        study_key,
        study.state,
        target,
        Step.REQUEUED,
        now,
        changes={"attempts": 0, "next_attempt_at": None, "woken_at": None, "ready_at": now},
    )
    return target


def study_key_of(session: Session, study_uid: str) -> int:
    """The key of a study that an operator names.

    Raises:
        MultiMixError: no such study is known.
    """
    key = session.scalar(select(Study.study_key).where(Study.study_uid == study_uid))
    if key is None:
        raise MultiMixError(f"no study {study_uid} is known; `status` lists all")
    return key


def failed_studies(session: Session) -> list[int]:
    """Keys of all studies that have failed."""
    return list(
        session.scalars(
            select(Study.study_key)
            .where(Study.state == StudyState.FAILED)
            .order_by(Study.study_key)
        )
    )


def _requeue_deliveries(session: Session, study_key: int, now: datetime) -> int:
    """Let dead letters wait anew, or give up those to targets of former settings; how many."""
    # What the target wanted in the first place is tried first; stand-ins follow where needed.
    session.execute(
        delete(Delivery).where(
            Delivery.study_key == study_key,
            Delivery.state == DeliveryState.NOT_TAKEN,
            Delivery.instead_of.is_not(None),
        )
    )
    named = Delivery.peer_key.in_(select(Peer.peer_key).where(Peer.configured))
    not_sent = update(Delivery).where(
        Delivery.study_key == study_key, Delivery.state.in_(_NOT_SENT)
    )
    again = session.scalars(
        not_sent.where(named)
        # The time after which it is given up counts anew.
        .values(
            state=DeliveryState.PENDING,
            attempts=0,
            created_at=now,
            next_attempt_at=now,
            finished_at=None,
        )
        .returning(Delivery.delivery_key)
    ).all()
    given_up = session.scalars(
        not_sent.where(~named, Delivery.state != DeliveryState.TARGET_REMOVED)
        .values(state=DeliveryState.TARGET_REMOVED, finished_at=now)
        .returning(Delivery.delivery_key)
    ).all()
    if again or given_up:
        record(
            session,
            EventKind.RESULT_REQUEUED,
            now,
            study_key=study_key,
            detail={"deliveries": len(again), "given_up": len(given_up)},
        )
    return len(again) + len(given_up)


def _forget_attempts(session: Session, study_key: int) -> int:
    """Let films without a result be read as if for the first time; the log keeps what was."""
    films = select(Instance.instance_key).where(Instance.study_key == study_key)
    forgotten = session.scalars(
        delete(Inference)
        .where(Inference.instance_key.in_(films), Inference.state.in_(_WITHOUT_RESULT))
        .returning(Inference.inference_key)
    ).all()
    return len(forgotten)
