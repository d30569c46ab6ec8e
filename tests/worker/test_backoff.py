"""Pauses grow, end somewhere, and differ."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.backoff import Backoff

BACKOFF = Backoff(first_seconds=5, longest_seconds=900)


@given(failures=st.integers(1, 10**9), draw=st.floats(0, 1, exclude_max=True))
def test_a_pause_is_between_half_of_its_nominal_length_and_all_of_it(
    failures: int, draw: float
) -> None:
    nominal = min(5 * 2 ** min(failures - 1, 40), 900)
    pause = BACKOFF.pause(failures, lambda: draw).total_seconds()
    assert nominal / 2 <= pause <= nominal


def test_what_failed_together_does_not_come_back_together() -> None:
    assert len({BACKOFF.pause(8) for _ in range(50)}) > 40
    assert BACKOFF.pause(8) < timedelta(seconds=901)
