"""Periodic work in threads of its own: what waits for a disk or a server delays nothing else."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from dicom_io.errors import MultiMixError

_LOG = logging.getLogger(__name__)
_PAUSE_AFTER_FAILURE_SECONDS: Final = 1.0
_PAUSE_BETWEEN_BATCHES_SECONDS: Final = 0.05


@dataclass(frozen=True)
class PeriodicWork:
    """One kind of work that is done again and again.

    Attributes:
        name: as the log calls it.
        every_seconds: pause when nothing was left to do.
        do_batch: does a bounded part; True if more is waiting.
    """

    name: str
    every_seconds: float
    do_batch: Callable[[], bool]


@contextmanager
def working_beside(
    works: Sequence[PeriodicWork], stop: threading.Event
) -> Iterator[Callable[[], None]]:
    """Do periodic work beside the caller's own until told to stop.

    A database, disk or server that is away is waited for; the log says so once.

    Args:
        works: what to do, each in a thread.
        stop: ends the work; set by this function when the caller's block ends.

    Yields:
        A check that raises what ended a thread which should still be at work.
    """
    with ThreadPoolExecutor(max(len(works), 1), thread_name_prefix="periodic") as threads:
        running = [threads.submit(_repeat, work, stop) for work in works]
        try:
            yield lambda: _raise_failure(running)
        finally:
            stop.set()


def _repeat(work: PeriodicWork, stop: threading.Event) -> None:
    failing = False
    pause = 0.0
    while not stop.wait(pause):
        try:
            more = work.do_batch()
        except (SQLAlchemyError, MultiMixError) as cause:
            if not failing:
                told = str(cause) if isinstance(cause, MultiMixError) else type(cause).__name__
                _LOG.warning("%s has to wait: %s", work.name, told)
            failing, pause = True, max(work.every_seconds, _PAUSE_AFTER_FAILURE_SECONDS)
        else:
            if failing:
                _LOG.warning("%s goes on", work.name)
            failing = False
            pause = _PAUSE_BETWEEN_BATCHES_SECONDS if more else work.every_seconds


def _raise_failure(running: list[Future[None]]) -> None:
    for thread in running:
        if thread.done():
            thread.result()
