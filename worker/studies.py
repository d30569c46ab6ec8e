"""The state machine of a study, and when a study is complete; pure rules, no database.

::

                 +------------- late instance: next revision ---------------+
                 v                                                          |
    (new) --> received --> ready --> running --> delivering                 |
                 |           ^          |             |                     |
                 |           +- retry --+             +--> done, failed, rejected
                 |                      |                  (nothing is on its way any more)
                 |                      +--> done, failed, rejected         |
                 +--> rejected               (nothing is on its way)        |
                                                                            |
                   any of ready, running, delivering, done, failed, rejected, removed

What is done or rejected has no result on its way to a target: a study whose latest model has no
result of it is rejected only when the results of older models have been sent.

A requeue by the operator leads from done, failed or rejected to ready, and from failed to
delivering where only deliveries are left to do. Done and rejected studies end as removed when
their time is over; an operator has any removed that nobody is at work on. What stands for an object
that named no study goes from rejected to removed when that comes again and names one.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from dicom_io.errors import IllegalTransition


class StudyState(Enum):
    """Where a study stands."""

    RECEIVED = "received"
    READY = "ready"
    RUNNING = "running"
    DELIVERING = "delivering"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    REMOVED = "removed"


class Step(Enum):
    """Why a study goes from one state to another."""

    BECAME_QUIET = "every association that brought part of it has ended, and it stayed quiet"
    GREW = "an instance came later; everything new is read before results go out again"
    UNREADABLE = "what came cannot be attributed to a study, or is not readable"
    CLAIMED = "a worker took it under a lease"
    HANDED_BACK = "the worker gave it back: its time was over, or the attempt failed"
    LEASE_EXPIRED = "the worker gave no sign of life until its lease ran out"
    GAVE_UP = "every attempt failed"
    RESULTS_MADE = "its results are stored, and some have yet to reach a target"
    NOTHING_TO_SEND = "its results are stored, and no target is set or all of them have it all"
    NOTHING_ELIGIBLE = "none of its instances is a frontal chest radiograph"
    CORRECTED = "its only object named no study, came again, and names one"
    ALL_DELIVERED = "every target has every result"
    DELIVERY_FAILED = "a target refused a result for good, or part of the study could not be read"
    REQUEUED = "an operator asked for it"
    EXPIRED = "its files were kept for as long, or as much as, the settings say"
    ERASED = "an operator had it erased"


_S = StudyState
_FINAL: Final = (_S.DONE, _S.FAILED, _S.REJECTED)

TRANSITIONS: Final[Mapping[tuple[StudyState, StudyState], frozenset[Step]]] = {
    (_S.RECEIVED, _S.READY): frozenset({Step.BECAME_QUIET}),
    (_S.RECEIVED, _S.REJECTED): frozenset({Step.UNREADABLE}),
    (_S.READY, _S.RUNNING): frozenset({Step.CLAIMED}),
    (_S.RUNNING, _S.READY): frozenset({Step.HANDED_BACK, Step.LEASE_EXPIRED}),
    (_S.RUNNING, _S.DELIVERING): frozenset({Step.RESULTS_MADE}),
    (_S.RUNNING, _S.DONE): frozenset({Step.NOTHING_TO_SEND}),
    (_S.RUNNING, _S.REJECTED): frozenset({Step.NOTHING_ELIGIBLE}),
    (_S.RUNNING, _S.FAILED): frozenset({Step.GAVE_UP}),
    (_S.DELIVERING, _S.DONE): frozenset({Step.ALL_DELIVERED}),
    (_S.DELIVERING, _S.FAILED): frozenset({Step.DELIVERY_FAILED}),
    (_S.DELIVERING, _S.REJECTED): frozenset({Step.NOTHING_ELIGIBLE}),
    (_S.FAILED, _S.DELIVERING): frozenset({Step.REQUEUED}),
    **{
        (state, _S.REMOVED): frozenset({Step.ERASED})
        for state in (_S.RECEIVED, _S.READY, _S.DELIVERING, _S.FAILED)
    },
    (_S.DONE, _S.REMOVED): frozenset({Step.EXPIRED, Step.ERASED}),
    (_S.REJECTED, _S.REMOVED): frozenset({Step.EXPIRED, Step.ERASED, Step.CORRECTED}),
    **{(state, _S.READY): frozenset({Step.REQUEUED}) for state in _FINAL},
    **{
        (state, _S.RECEIVED): frozenset({Step.GREW})
        for state in (_S.READY, _S.RUNNING, _S.DELIVERING, *_FINAL, _S.REMOVED)
    },
}


def require_drawn(source: StudyState, target: StudyState, step: Step) -> None:
    """Refuse a transition that the machine does not draw.

    Raises:
        IllegalTransition: there is no such arrow, or it has another reason.
    """
    if step not in TRANSITIONS.get((source, target), frozenset()):
        raise IllegalTransition(
            f"no arrow leads from {source.value} to {target.value} by {step.name}"
        )


def starts_new_revision(state: StudyState) -> bool:
    """Whether an instance that comes in this state opens the next revision of its study.

    Before a worker took the study there is nothing that a revision would have to supersede.
    """
    return state not in (StudyState.RECEIVED, StudyState.READY)


def due_at(
    *,
    open_associations: int,
    last_change: datetime,
    revision_started: datetime,
    quiet: timedelta,
    longest_wait: timedelta,
) -> datetime:
    """When a received study becomes ready.

    Args:
        open_associations: associations that brought part of the study and have not ended.
        last_change: when its last instance came or its last association ended.
        revision_started: when the first instance of this revision came.
        quiet: pause after the last change.
        longest_wait: after this long the study becomes ready whatever is still open.

    Returns:
        ``quiet`` after the last change once all associations have ended, but never later than
        ``longest_wait`` after the revision started.
    """
    latest = revision_started + longest_wait
    return latest if open_associations else min(last_change + quiet, latest)
