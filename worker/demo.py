"""The whole product on one machine: node and PACS, studies in, results back, a table.

    make demo
    make demo DEMO_STUDIES=folder DEMO_JSON=table.json

Everything runs on 127.0.0.1. The node's own data is removed at the end; received results and
pictures stay in ``demo-output/results``.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from dicom_io.errors import MultiMixError
from dicom_io.sender import RemoteAE, send
from worker.database import Database
from worker.demo_outcomes import ask, make_row
from worker.demo_pacs import AE_TITLE, ReceivingPacs, free_port, start_pacs, wait_until
from worker.demo_studies import StudyToSend, choose_studies
from worker.demo_table import print_table
from worker.study_steps import FINAL_STATES

OUTPUT: Final = Path("demo-output")
START_SECONDS: Final = 90
STUDY_SECONDS: Final = 60
# So many studies are on their way at once; more would only show how long a queue is.
STUDIES_IN_FLIGHT: Final = 4
HANGS: Final = f"the node did not finish in {STUDY_SECONDS} s; see {OUTPUT / 'node.log'}"


def demo(studies: Path | None, json_file: Path | None) -> int:
    """Run the demonstration.

    Args:
        studies: DICOM file or folder to send; None for the default.
        json_file: where the table is also written.

    Returns:
        Exit status: 0 only if every expected object arrived.
    """
    console = Console()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    try:
        with interruptible(), receiving_pacs() as pacs, running_node(pacs, console) as node:
            to_send = choose_studies(studies, OUTPUT / "input")
            console.print(
                f"sending {len(to_send)} studies to the node, results go to {pacs.name} "
                f"({AE_TITLE} on port {pacs.port})"
            )
            sent_at = send_all(to_send, node, pacs, console)
            rows = [
                make_row(study, sent_at[study], node.database, pacs, OUTPUT / "results")
                for study in to_send
            ]
    except KeyboardInterrupt:
        console.print("interrupted; node and PACS are stopped")
        return 130
    except MultiMixError as problem:
        console.print(f"[red]{problem}[/red]", highlight=False)
        return 1
    finally:
        shutil.rmtree(OUTPUT / "node", ignore_errors=True)
        shutil.rmtree(OUTPUT / "pacs", ignore_errors=True)
    print_table(rows, console)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    complaints = [row for row in rows if row.complaint]
    return 1 if complaints or not rows else 0


@dataclass(frozen=True)
class Node:
    """A running node: where it listens, and its database to ask what became of a study."""

    address: RemoteAE
    database: Database
    process: subprocess.Popen[bytes]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM clean up as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def receiving_pacs() -> Iterator[ReceivingPacs]:
    """The PACS that results go to, stopped at the end."""
    pacs = start_pacs((OUTPUT / "pacs").absolute())
    try:
        yield pacs
    finally:
        pacs.stop()


@contextmanager
def running_node(pacs: ReceivingPacs, console: Console) -> Iterator[Node]:
    """``python -m worker up`` on its embedded default, stopped at the end."""
    home = (OUTPUT / "node").absolute()
    home.mkdir(parents=True)
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MULTIMIX_")} | {
        "MULTIMIX_HOME": str(home),
        "MULTIMIX_LISTENER_PORT": str(port),
        "MULTIMIX_TARGETS": f"{AE_TITLE}@127.0.0.1:{pacs.port}",
        "MULTIMIX_QUIET_SECONDS": "1",
        "MULTIMIX_READER_PROCESSES": str(min(2, os.cpu_count() or 1)),
    }
    log_path = OUTPUT / "node.log"
    with log_path.open("wb") as log:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the node.
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "up"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with console.status("starting the node"):
            wait_until(lambda: is_ready(process, log_path), START_SECONDS, f"see {log_path}")
        database = Database(f"sqlite:///{home / 'node.sqlite'}")
        yield Node(RemoteAE("MULTIMIX", "127.0.0.1", port, "DEMO"), database, process)
        database.close()
    finally:
        stop(process)


def is_ready(process: subprocess.Popen[bytes], log_path: Path) -> bool:
    """Whether the node said that it is ready.

    Raises:
        MultiMixError: it ended instead.
    """
    if process.poll() is not None:
        raise MultiMixError(f"the node ended at its start; see {log_path}")
    return "node is ready" in log_path.read_text(errors="replace")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the node as an operator would, and firmly if that takes too long."""
    process.terminate()
    try:
        process.wait(timeout=40)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def send_all(
    studies: list[StudyToSend], node: Node, pacs: ReceivingPacs, console: Console
) -> dict[StudyToSend, float]:
    """Send each study over an association of its own and wait until all are settled.

    Returns:
        ``time.time()`` of the last C-STORE response of each study.
    """
    sent_at: dict[StudyToSend, float] = {}

    def in_flight() -> int:
        # Asked again and again, so that each arrival is noted when it happens.
        pacs.arrivals()
        return sum(not is_settled(study, node) for study in sent_at)

    with console.status("sending and waiting for results") as status:
        for study in studies:
            wait_until(lambda: in_flight() < STUDIES_IN_FLIGHT, STUDY_SECONDS, HANGS)
            for outcome in send(list(study.paths), node.address):
                if outcome.status != 0x0000:
                    console.print(f"{study.name}: {outcome.detail}", highlight=False)
            sent_at[study] = time.time()
            status.update(f"{len(sent_at)} of {len(studies)} studies sent")
        wait_until(lambda: in_flight() == 0, STUDY_SECONDS, HANGS)
    return sent_at


def is_settled(study: StudyToSend, node: Node) -> bool:
    """Whether the node has nothing left to do for a study."""
    found = ask(study, node.database)
    return found is not None and found.state in FINAL_STATES
