"""Keeps processes running: starts them, restarts what ends, and stops all of them in time."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from worker.backoff import Backoff
from worker.clock import utc_now
from worker.parent_death import end_with_parent

_LOG = logging.getLogger(__name__)

# A process that ran for so long was not ended by what ends a process at its start.
_LONG_RUN_SECONDS: Final = 15.0
_KILL_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Part:
    """One process of the node.

    Attributes:
        name: for the log.
        command: program and arguments.
        is_essential_to_others: stopped last.
    """

    name: str
    command: Sequence[str]
    is_essential_to_others: bool = False


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0  # on the monotonic clock
    changed_at: datetime | None = None
    failures: int = 0
    restart_at: float = 0.0


@dataclass
class Supervisor:
    """Runs parts as children of this process; they end with it, however it ends.

    Attributes:
        parts: what runs, in the order of starting.
        environment: of the children.
        stop_seconds: time in which all of them have to end when asked to.
        backoff: pauses before a part that ends again and again is restarted.
    """

    parts: Sequence[Part]
    environment: Mapping[str, str]
    stop_seconds: float
    backoff: Backoff = field(default_factory=lambda: Backoff(0.5, 15.0))
    _running: list[_Running] = field(default_factory=list)

    def start(self) -> None:
        """Start every part."""
        self._running = [_Running(part) for part in self.parts]
        for running in self._running:
            self._start(running)

    def restart_what_ended(self) -> None:
        """Start anew what has ended; at once the first time, then after growing pauses."""
        for running in self._running:
            if running.process is not None and running.process.poll() is not None:
                self._note_end(running, running.process.returncode)
            if running.process is None and time.monotonic() >= running.restart_at:
                self._start(running)

    def restart(self, name: str) -> None:
        """End a part that hangs; it is started anew by ``restart_what_ended``."""
        for running in self._running:
            if running.part.name == name and running.process is not None:
                _signal(running.process, signal.SIGKILL)

    def failures(self) -> dict[str, int]:
        """How often in a row each part has ended soon after its start."""
        return {running.part.name: running.failures for running in self._running}

    def last_changes(self) -> dict[str, datetime]:
        """When the present process of each part was started or, without one, the last one ended."""
        return {
            running.part.name: running.changed_at
            for running in self._running
            if running.changed_at is not None
        }

    def process_of(self, name: str) -> int | None:
        """Process number of a part; None if it is not running."""
        for running in self._running:
            if running.part.name == name and running.process is not None:
                return running.process.pid
        return None

    def stop(self) -> None:
        """Ask all parts to end, the essential ones last, and kill what has not ended in time."""
        deadline = time.monotonic() + self.stop_seconds - _KILL_SECONDS
        users = [r for r in self._running if not r.part.is_essential_to_others]
        servers = [r for r in self._running if r.part.is_essential_to_others]
        _stop(users, deadline)
        _stop(servers, max(deadline, time.monotonic() + _KILL_SECONDS / 2))
        self._running = []

    def _start(self, running: _Running) -> None:
        running.process = subprocess.Popen(
            list(running.part.command),
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            # A group of its own: Ctrl-C reaches the supervisor alone, and nothing of the part is
            # left when the group is ended.
            process_group=0,
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
        running.started = time.monotonic()
        running.changed_at = utc_now()

    def _note_end(self, running: _Running, status: int) -> None:
        process, running.process = running.process, None
        running.changed_at = utc_now()
        if process is not None:
            _signal(process, signal.SIGKILL)  # what it may have left behind
        if time.monotonic() - running.started > _LONG_RUN_SECONDS:
            running.failures = 0
        running.failures += 1
        pause = self.backoff.pause(running.failures).total_seconds()
        running.restart_at = time.monotonic() + pause
        _LOG.error(
            "%s ended with status %d; it is started again in %.1f s",
            running.part.name,
            status,
            pause,
        )


def _stop(running: Sequence[_Running], deadline: float) -> None:
    processes = [r.process for r in running if r.process is not None]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _LOG.warning("process %d did not end in time and is killed", process.pid)
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal a part and whatever it has started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
