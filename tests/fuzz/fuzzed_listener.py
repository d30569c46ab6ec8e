"""The listener process from outside: its port, its threads, its memory, what it says at the end."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dicom_io.remote import RemoteAE
from dicom_io.sender import echo

ROOT = Path(__file__).resolve().parents[2]
MOST_GROWTH_MIB = 50


@dataclass
class FuzzedListener:
    """A running listener.

    Attributes:
        process: its process.
        port: where it listens.
        store: its folder.
        counts: accepted, ended, stored, still open; known after the end.
        errors: what it wrote to standard error; known after the end.
    """

    process: subprocess.Popen[str]
    port: int
    store: Path
    counts: list[int] = field(default_factory=list)
    errors: str = ""

    def echo(self) -> None:
        """Ask by C-ECHO whether it is there."""
        echo(RemoteAE("MULTIMIX", "127.0.0.1", self.port))

    def status(self, name: str) -> int:
        """A number of ``/proc/PID/status``."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (found,) = [line for line in lines if line.startswith(f"{name}:")]
        return int(found.split()[1])

    @property
    def resident_mib(self) -> float:
        """What it holds of memory."""
        return self.status("VmRSS") / 1024

    def wait_for_threads(self, most: int) -> None:
        """Wait until it has no more threads than before."""
        wait_until(lambda: self.status("Threads") <= most, "the listener's threads to end")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


@contextmanager
def fuzzed_listener(folder: Path, idle_timeout_seconds: float = 2) -> Iterator[FuzzedListener]:
    """A listener that is ended at the end, and then says what it counted."""
    log = folder / "listener.log"
    arguments = [str(folder / "store"), str(idle_timeout_seconds)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.listener_process", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        listener = FuzzedListener(process, int(process.stdout.readline()), folder / "store")
        try:
            yield listener
            process.stdin.close()
            listener.counts = list(map(int, process.stdout.readline().split()))
            assert process.wait(30) == 0
        finally:
            process.kill()
            listener.errors = log.read_text()
