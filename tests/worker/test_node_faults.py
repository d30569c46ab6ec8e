"""A real node whose processes are killed: what it acknowledged comes out all the same."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import select

from dicom_io.phantom import draw_phantom, phantom_dataset
from model import SHIPPED_MODEL
from tests.worker.node_processes import broker_of, processes_of
from tests.worker.nodes import ROOT, RunningNode, running_node, waited_for
from worker.database import Database
from worker.demo_pacs import StorageScpPacs
from worker.studies import StudyState
from worker.study_steps import FINAL_STATES
from worker.tables import Result, Study


def film(seed: int) -> Dataset:
    return phantom_dataset(draw_phantom(seed, 256, 256))


@pytest.fixture
def node(tmp_path: Path, pacs: StorageScpPacs) -> Iterator[RunningNode]:
    with running_node(tmp_path / "node", pacs, lease_seconds="3") as running:
        yield running


def wait_for_state(home: Path, dataset: Dataset, *states: StudyState) -> StudyState:
    """Wait until a study is in a state; asked of the database, which costs the node nothing."""
    database = Database(f"sqlite:///{home}/node.sqlite")

    def found() -> StudyState | None:
        with database.reading() as session:
            state = session.scalar(
                select(Study.state).where(Study.study_uid == dataset.StudyInstanceUID)
            )
        return state if state in states else None

    try:
        return waited_for(found, f"study {dataset.StudyInstanceUID} to be {states}")
    finally:
        database.close()


def outcome_of(home: Path, dataset: Dataset) -> StudyState:
    """The state in which a study ends."""
    return wait_for_state(home, dataset, *FINAL_STATES)


def kill(node: RunningNode, *words: str) -> list[int]:
    """Kill every process of a part and give their numbers."""
    home = Path(node.environment["MULTIMIX_HOME"])
    killed = waited_for(lambda: processes_of(home, *words), f"a process with {words}")
    for process in killed:
        os.kill(process, signal.SIGKILL)
    return killed


def test_whatever_is_killed_comes_back_and_no_study_is_lost(
    node: RunningNode, pacs: StorageScpPacs
) -> None:
    home = Path(node.environment["MULTIMIX_HOME"])
    sent = []

    def send_one() -> None:
        sent.append(film(len(sent)))
        answers = waited_for(lambda: _try_to_send(node, sent[-1]), "the listener")
        assert answers == [0x0000]

    send_one()
    kill(node, "listen")  # its association had ended; what it took is in the database
    send_one()
    wait_for_state(home, sent[-1], StudyState.RUNNING, *FINAL_STATES)
    kill(node, "-Q", "reading")  # while it reads
    send_one()
    kill(node, "sweep")
    send_one()
    kill(node, "-Q", "delivery")
    os.kill(broker_of(node.process.pid), signal.SIGKILL)
    shutil.rmtree(home / "broker" / "appendonlydir")  # and all that it knew with it
    send_one()

    for dataset in sent:
        assert outcome_of(home, dataset) is StudyState.DONE
    database = Database(f"sqlite:///{home}/node.sqlite")
    with database.reading() as session:
        sent_results = select(Result.sop_instance_uid).where(Result.deliveries.any())
        results = list(session.scalars(sent_results))
    database.close()
    assert len(results) == len(set(results)) == 2 * len(sent)
    assert set(pacs.arrivals()) == set(results)


def _try_to_send(node: RunningNode, dataset: Dataset) -> list[int | None] | None:
    try:
        return [outcome.status for outcome in node.send(dataset)]
    except Exception:  # noqa: BLE001 - the listener is being started again
        return None


def test_a_node_that_is_killed_leaves_no_process_and_goes_on_when_it_is_started_again(
    tmp_path: Path, pacs: StorageScpPacs
) -> None:
    home = tmp_path / "node" / "home"
    dataset = film(1)
    with running_node(tmp_path / "node", pacs, lease_seconds="3") as node:
        assert [outcome.status for outcome in node.send(dataset)] == [0x0000]
        node.process.kill()
        node.process.wait()
        waited_for(lambda: not processes_of(home), "the node's processes to end", 40)
    with running_node(tmp_path / "node", pacs, lease_seconds="3"):
        assert outcome_of(home, dataset) is StudyState.DONE
    assert processes_of(home) == []
    assert len(pacs.arrivals()) == 2


def up(home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a node that is expected to end by itself."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MULTIMIX_HOME": str(home)}
    environment |= {f"MULTIMIX_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "worker", "up"],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_second_node_in_the_same_home_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = up(tmp_path)
    assert second.returncode == 2
    assert "another node runs in" in second.stderr


def test_a_node_that_cannot_start_ends_and_says_why(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        node = up(tmp_path, listener_port=port)
    assert node.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in node.stderr
    assert "the node cannot start: its listener ended 3 x" in node.stderr
    assert processes_of(tmp_path) == []


def test_a_damaged_model_keeps_the_worker_from_starting_and_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(SHIPPED_MODEL, model)
    weights = bytearray((model / "weights.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (model / "weights.safetensors").write_bytes(weights)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MULTIMIX_HOME": str(tmp_path / "home"),
        "MULTIMIX_MODEL_DIRECTORY": str(model),
        "MULTIMIX_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    subprocess.run(
        [sys.executable, "-m", "worker", "migrate"], env=environment, timeout=60, check=True
    )
    worker = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker", "worker", "-Q", "reading"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "the worker cannot start" in worker.stderr
    assert "weights.safetensors is damaged: its SHA-256 is" in worker.stderr


def test_the_parent_of_forked_workers_never_imports_torch(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MULTIMIX_HOME": str(tmp_path),
        "MULTIMIX_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    code = "import worker.celery, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=True)
