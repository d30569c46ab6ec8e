"""What ends is started again, what must end does, and nothing outlives its supervisor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.nodes import ROOT, waited_for
from worker.backoff import Backoff
from worker.supervisor import Part, Supervisor

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time, pathlib, sys\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "time.sleep(600)",
]


def supervisor_of(*parts: Part, stop_seconds: float = 10.0) -> Supervisor:
    return Supervisor(parts, os.environ, stop_seconds, Backoff(0.01, 0.05))


def is_alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def sleeping() -> Iterator[Supervisor]:
    supervisor = supervisor_of(Part("one", SLEEP), Part("two", SLEEP))
    supervisor.start()
    yield supervisor
    supervisor.stop()


def test_a_part_that_is_killed_is_started_again_and_the_other_is_left_alone(
    sleeping: Supervisor,
) -> None:
    one, two = sleeping.process_of("one"), sleeping.process_of("two")
    assert one is not None
    os.kill(one, signal.SIGKILL)

    def started_again() -> bool:
        sleeping.restart_what_ended()
        return sleeping.process_of("one") not in (None, one)

    waited_for(started_again, "the restart")
    assert sleeping.process_of("two") == two


def test_a_part_that_ends_at_once_is_started_ever_more_slowly(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = f"open({str(starts)!r}, 'a').write('x')"
    supervisor = Supervisor(
        [Part("broken", [sys.executable, "-c", code])], os.environ, 5.0, Backoff(0.2, 60.0)
    )
    supervisor.start()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        supervisor.restart_what_ended()
        time.sleep(0.01)
    supervisor.stop()
    assert 2 <= len(starts.read_text()) <= 6


def test_what_does_not_end_when_asked_is_killed_in_time(tmp_path: Path) -> None:
    ignores = tmp_path / "ignores"
    supervisor = supervisor_of(Part("stubborn", [*STUBBORN, str(ignores)]), stop_seconds=3.0)
    supervisor.start()
    process = supervisor.process_of("stubborn")
    assert process is not None
    waited_for(ignores.exists, "the part to ignore signals")
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 3.5
    assert not is_alive(process)


def test_parts_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from worker.supervisor import Part, Supervisor\n"
        f"supervisor = Supervisor([Part('one', {SLEEP!r})], os.environ, 5.0)\n"
        "supervisor.start()\n"
        "print(supervisor.process_of('one'), flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    waited_for(lambda: not is_alive(child), "the part to end")
