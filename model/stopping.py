"""Why a training run is stopped from outside, asked between two steps so that state is saved."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType


class StopReason(Enum):
    """Why the run ends; the value is what its user reads."""

    SIGNAL = "stopped by a signal"
    TIME = "the time limit is reached"


@contextmanager
def stop_requests(minutes: float | None) -> Iterator[Callable[[], StopReason | None]]:
    """Turn SIGTERM, SIGINT and a time limit into a question that the loop asks after each step.

    The handlers found are put back at the end.

    Args:
        minutes: from now; None for no limit.
    """
    deadline = time.monotonic() + minutes * 60 if minutes is not None else float("inf")
    signalled = False

    def remember(_signal: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        signalled = True

    def reason() -> StopReason | None:
        if signalled:
            return StopReason.SIGNAL
        return StopReason.TIME if time.monotonic() >= deadline else None

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield reason
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
