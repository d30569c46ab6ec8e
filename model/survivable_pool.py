"""Work in several processes that goes on where one of them dies over a file, or comes to no end.

A codec that reads where it must not ends its process, and the pool with it. One that counts for
ever is ended by the kernel. The files that were in work then are tried again, each in a process of
its own, so that only the one at fault is lost.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

BATCH: Final = 16
BATCHES_A_PROCESS: Final = 3
"""How far ahead of the results files are handed out; it bounds the memory."""
PROCESSOR_SECONDS: Final = 120.0
"""Of processor time, so that a busy machine or a slow disk costs no film; the largest take two."""


@dataclass(frozen=True)
class Outcome(Generic[Given, Made]):
    """What became of one thing that was given.

    Attributes:
        given: that thing.
        made: the result; None where its process died over it, or had to be ended.
        is_new: whether it was made now.
    """

    given: Given
    made: Made | None
    is_new: bool


class SurvivablePool:
    """Processes that apply functions of modules to things that can be sent to them."""

    def __init__(self, processes: int, longest_seconds: float = PROCESSOR_SECONDS) -> None:
        """Describe the pool; its processes start when there is work.

        Args:
            processes: how many.
            longest_seconds: processor time after which a process is ended over one thing.
        """
        self._processes = processes
        self._longest_seconds = longest_seconds
        self._pool = _new_pool(processes)

    def in_order(
        self,
        function: Callable[[Given], Made],
        given: Iterable[Given],
        known: Callable[[Given], Made | None],
    ) -> Iterator[Outcome[Given, Made]]:
        """Apply a function to what is not known yet, a bounded number of things ahead.

        Args:
            function: of a module, so that a process can be told its name.
            given: what to apply it to; taken as results are asked for.
            known: the result where it need not be made, else None.

        Returns:
            The outcomes in the order of ``given``.
        """
        waiting: deque[tuple[list[Outcome[Given, Made]], _Batch[Given, Made] | None]] = deque()
        remaining = iter(given)
        while batch := list(islice(remaining, BATCH)):
            outcomes = [Outcome(one, known(one), is_new=False) for one in batch]
            unknown = [outcome.given for outcome in outcomes if outcome.made is None]
            waiting.append((outcomes, self._submit(function, unknown) if unknown else None))
            if len(waiting) > BATCHES_A_PROCESS * self._processes:
                yield from _completed(*waiting.popleft())
        while waiting:
            yield from _completed(*waiting.popleft())

    def _submit(
        self, function: Callable[[Given], Made], given: Sequence[Given]
    ) -> "_Batch[Given, Made]":
        bounded = partial(_bounded, function, self._longest_seconds)
        try:
            return _Batch(bounded, given, self._pool.submit(_each, bounded, given))
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = _new_pool(self._processes)
            return _Batch(bounded, given, self._pool.submit(_each, bounded, given))

    def close(self) -> None:
        """End the processes; work that has not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Batch(Generic[Given, Made]):
    """Things in work."""

    function: Callable[[Given], Made]
    given: Sequence[Given]
    future: Future[list[Made]]

    def results(self) -> Sequence[Made | None]:
        """Wait for the results, None for each thing whose process died over it."""
        try:
            return self.future.result()
        except BrokenProcessPool:
            return [_alone(self.function, one) for one in self.given]


def _completed(
    outcomes: list[Outcome[Given, Made]], batch: _Batch[Given, Made] | None
) -> Iterator[Outcome[Given, Made]]:
    made = iter(batch.results() if batch else ())
    for outcome in outcomes:
        known = outcome.made is not None
        yield outcome if known else Outcome(outcome.given, next(made), is_new=True)


def _each(function: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
    return [function(one) for one in given]


def _bounded(function: Callable[[Given], Made], seconds: float, given: Given) -> Made:
    """Apply a function; the kernel ends this process, also within a codec, if it takes too long."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return function(given)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _alone(function: Callable[[Given], Made], given: Given) -> Made | None:
    with _new_pool(1) as pool:
        try:
            return pool.submit(function, given).result()
        except BrokenProcessPool:
            return None


def _new_pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A killed parent cannot end its processes; left alone they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
