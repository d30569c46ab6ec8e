"""Where a study goes when its worker lets go of it: on to delivery, to its end, or back in line.

Each function is part of a transaction that holds the study's lease, and ends the lease.
"""

from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from worker.backoff import Backoff
from worker.dispatching import call_for_deliveries, peers_to_wake
from worker.results import inference_counts
from worker.settling import ending_of, is_on_its_way
from worker.studies import Step, StudyState
from worker.study_steps import StudyLease, take_step
from worker.tables import InferenceState, Study

# A full disk is looked at again after a pause as after so many failures in a row; each look costs
# a reading.
_FAILURES_LIKE_NO_ROOM: Final = 3
_STEPS: Final = {
    StudyState.DONE: Step.NOTHING_TO_SEND,
    StudyState.FAILED: Step.GAVE_UP,
    StudyState.REJECTED: Step.NOTHING_ELIGIBLE,
}


def finish(
    session: Session, lease: StudyLease, model_key: int, backoff: Backoff, now: datetime
) -> list[int]:
    """Let go of a study of which every instance is settled, or has to be tried again.

    Args:
        session: the transaction.
        lease: of the study.
        model_key: the model that it was read with.
        backoff: pauses before a study is tried again.
        now: the time.

    Returns:
        Keys of the peers for which results wait, whether made now or before.
    """
    counts = inference_counts(session, lease.study_key, model_key)
    if counts.get(InferenceState.STARTED):
        _try_again(session, lease, backoff, now)
        return []
    if counts.get(InferenceState.READ):
        call_for_deliveries(session, lease.study_key, now)
    session.flush()
    # Results of an earlier revision, or of another model, keep the study open as its own do.
    if is_on_its_way(session, lease.study_key):
        _leave(session, lease, StudyState.DELIVERING, Step.RESULTS_MADE, now)
        return peers_to_wake(session, lease.study_key)
    ending = ending_of(session, lease.study_key, model_key)
    _leave(session, lease, ending.state, _STEPS[ending.state], now, ending.reason)
    return []


def hand_back(session: Session, lease: StudyLease, now: datetime) -> None:
    """Hand back a study whose time is over, so that others get their turn."""
    _go_back(session, lease, now, due=now, attempts=0)


def hand_back_failed(
    session: Session,
    lease: StudyLease,
    backoff: Backoff,
    most_attempts: int,
    problem: str,
    now: datetime,
) -> None:
    """Hand back a study whose reading failed as a whole, or give it up after enough attempts.

    Args:
        session: the transaction.
        lease: of the study.
        backoff: pauses before a study is tried again.
        most_attempts: how often it is tried.
        problem: what failed, without patient data.
        now: the time.
    """
    study = session.get_one(Study, lease.study_key)
    if study.attempts > most_attempts:
        reason = f"reading the study failed {study.attempts} x: {problem}"
        _leave(session, lease, StudyState.FAILED, Step.GAVE_UP, now, reason)
    else:
        _try_again(session, lease, backoff, now)


def wait_for_room(
    session: Session, lease: StudyLease, backoff: Backoff, reason: str, now: datetime
) -> None:
    """Hand a study back whose results the disk cannot take, as often as need be."""
    due = now + backoff.pause(_FAILURES_LIKE_NO_ROOM)
    _go_back(session, lease, now, due, attempts=0, reason=f"its results wait for room: {reason}")


def _try_again(session: Session, lease: StudyLease, backoff: Backoff, now: datetime) -> None:
    attempts = session.get_one(Study, lease.study_key).attempts
    _go_back(session, lease, now, now + backoff.pause(attempts), attempts)


def _go_back(
    session: Session,
    lease: StudyLease,
    now: datetime,
    due: datetime,
    attempts: int,
    reason: str | None = None,
) -> None:
    take_step(
        session,
        lease.study_key,
        StudyState.RUNNING,
        StudyState.READY,
        Step.HANDED_BACK,
        now,
        lease_token=lease.token,
        reason=reason,
        changes={"next_attempt_at": due, "attempts": attempts},
    )


def _leave(
    session: Session,
    lease: StudyLease,
    target: StudyState,
    step: Step,
    now: datetime,
    reason: str | None = None,
) -> None:
    take_step(
        session,
        lease.study_key,
        StudyState.RUNNING,
        target,
        step,
        now,
        lease_token=lease.token,
        reason=reason,
        changes={"attempts": 0, "next_attempt_at": None},
    )
