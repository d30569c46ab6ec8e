"""The state machine of a study and the rule of its completeness, without a database."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io.errors import IllegalTransition
from worker.studies import (
    TRANSITIONS,
    Step,
    StudyState,
    due_at,
    require_drawn,
    starts_new_revision,
)

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
SECONDS = st.integers(min_value=0, max_value=5000).map(lambda s: timedelta(seconds=s))


@pytest.mark.parametrize("source", StudyState)
def test_only_drawn_transitions_are_taken(source: StudyState) -> None:
    for target, step in itertools.product(StudyState, Step):
        if step in TRANSITIONS.get((source, target), ()):
            require_drawn(source, target, step)
        else:
            with pytest.raises(IllegalTransition, match=f"{source.value} to {target.value}"):
                require_drawn(source, target, step)


def test_no_state_is_a_dead_end_for_late_instances() -> None:
    for state in set(StudyState) - {StudyState.RECEIVED}:
        require_drawn(state, StudyState.RECEIVED, Step.GREW)


def test_every_state_is_reached_and_work_always_leads_to_an_end() -> None:
    ends = {StudyState.DONE, StudyState.FAILED, StudyState.REJECTED}
    by_hand_or_later = {Step.GREW, Step.CORRECTED, Step.REQUEUED, Step.EXPIRED, Step.ERASED}
    work = [(a, b) for (a, b), steps in TRANSITIONS.items() if steps - by_hand_or_later]
    known = set(StudyState) - {StudyState.REMOVED}
    assert {b for _, b in work} | {StudyState.RECEIVED} == known
    assert {a for a, _ in work} == known - ends


def test_nothing_undelivered_expires_and_nothing_that_is_being_read_is_erased() -> None:
    removed = {a: steps for (a, b), steps in TRANSITIONS.items() if b is StudyState.REMOVED}
    assert {a for a, steps in removed.items() if Step.EXPIRED in steps} == {
        StudyState.DONE,
        StudyState.REJECTED,
    }
    assert set(removed) == set(StudyState) - {StudyState.RUNNING, StudyState.REMOVED}


def test_a_revision_begins_only_after_a_worker_took_the_study() -> None:
    assert [s for s in StudyState if not starts_new_revision(s)] == [
        StudyState.RECEIVED,
        StudyState.READY,
    ]


@given(changed=SECONDS, quiet=SECONDS, longest=SECONDS, open_associations=st.integers(0, 3))
def test_a_study_waits_for_quiet_but_never_longer_than_the_limit(
    changed: timedelta, quiet: timedelta, longest: timedelta, open_associations: int
) -> None:
    due = due_at(
        open_associations=open_associations,
        last_change=START + changed,
        revision_started=START,
        quiet=quiet,
        longest_wait=longest,
    )
    assert due <= START + longest
    if open_associations:
        assert due == START + longest
    else:
        assert due in (START + changed + quiet, START + longest)
