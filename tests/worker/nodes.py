"""A whole node as its operator starts it, in a folder of the test, stopped at the end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom import Dataset

from dicom_io.sender import RemoteAE, SendOutcome, send
from worker.demo_pacs import ReceivingPacs, free_port

Answer = TypeVar("Answer")
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
WAIT_SECONDS = 90.0


@dataclass(frozen=True)
class RunningNode:
    """A node, where it listens, and how to ask it.

    Attributes:
        address: of its listener, for a test that calls as ``MODALITY``.
        environment: of every command that belongs to this node.
        folder: the current folder of its processes.
        process: of ``python -m worker up``.
    """

    address: RemoteAE
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]

    def send(self, *datasets: Dataset) -> list[SendOutcome]:
        """Send objects over one association."""
        return send(list(datasets), self.address)

    def status(self) -> list[dict[str, Any]]:
        """What ``python -m worker status --json`` says of the studies."""
        return json.loads(self.command("status", "--json"))["studies"]

    def study(self, study_uid: str) -> dict[str, Any] | None:
        """The status of one study, or None."""
        found = [study for study in self.status() if study["study_uid"] == study_uid]
        return found[0] if found else None

    def wait_for(self, study_uid: str, *states: str, revision: int = 1) -> dict[str, Any]:
        """Wait until a study is in one of the states in at least the given revision."""

        def found() -> dict[str, Any] | None:
            study = self.study(study_uid)
            if study and study["state"] in states and study["revision"] >= revision:
                return study
            return None

        return waited_for(found, f"study {study_uid} to be {' or '.join(states)}")

    def command(self, *arguments: str) -> str:
        """Run ``python -m worker`` with this node's settings and give what it prints."""
        done = self._run(arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused_command(self, *arguments: str) -> str:
        """Run a command that must not succeed, and give what it says."""
        done = self._run(arguments)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@contextmanager
def running_node(
    folder: Path, pacs: ReceivingPacs | None, path: Sequence[Path] = (ROOT,), **settings: str
) -> Iterator[RunningNode]:
    """Run ``python -m worker up``; further settings by their names, in lower case.

    ``path`` is where its processes find their modules.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = int(settings.get("listener_port", free_port()))
    values = {
        "home": str(folder / "home"),
        "listener_port": str(port),
        "quiet_seconds": "0.5",
        "retry_seconds": "0.5",
    } | settings
    if pacs is not None:
        values["targets"] = f"DEMOPACS@127.0.0.1:{pacs.port}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    environment |= {f"MULTIMIX_{name.upper()}": value for name, value in values.items()}
    log_path = folder / "node.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "up"],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = RemoteAE("MULTIMIX", "127.0.0.1", port, "MODALITY")
    try:
        ready_or_ended = waited_for(
            lambda: process.poll() is not None or b"node is ready" in log_path.read_bytes(),
            "the node to start",
            START_SECONDS,
        )
        assert ready_or_ended
        if process.poll() is not None:
            pytest.fail(f"the node ended at its start:\n{log_path.read_text()[-3000:]}")
        yield RunningNode(address, environment, folder, process)
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("the node did not end within 40 s of SIGTERM")


def waited_for(
    ask: Callable[[], Answer | None], what: str, seconds: float = WAIT_SECONDS
) -> Answer:
    """Ask until there is an answer; fail the test when the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.2)
    pytest.fail(f"waited {seconds:.0f} s for {what}")
