"""A real node whose parts hang instead of dying, is told to stop, or calls a target that hangs."""

import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE
from redis import Redis
from sqlalchemy import select

from tests.worker.node_processes import processes_of
from tests.worker.nodes import RunningNode, running_node, waited_for
from tests.worker.test_node_faults import film, kill, outcome_of, wait_for_state
from worker.database import Database
from worker.demo_pacs import StorageScpPacs
from worker.studies import StudyState
from worker.tables import Delivery, DeliveryState, Peer

READER = ("-Q", "reading")
SHUTDOWN_SECONDS = 6


def home_of(node: RunningNode) -> Path:
    return Path(node.environment["MULTIMIX_HOME"])


def suspend(node: RunningNode, *words: str) -> list[int]:
    """Let every process of a part hang."""
    found = waited_for(lambda: processes_of(home_of(node), *words), f"a process with {words}")
    for process in found:
        os.kill(process, signal.SIGSTOP)
    return found


@pytest.fixture
def node(tmp_path: Path, pacs: StorageScpPacs) -> Iterator[RunningNode]:
    with running_node(tmp_path / "node", pacs, lease_seconds="3") as running:
        yield running


def test_a_worker_that_hangs_is_replaced_and_what_a_wiped_broker_forgot_is_queued_anew(
    node: RunningNode, pacs: StorageScpPacs
) -> None:
    with sqlite3.connect(home_of(node) / "node.sqlite") as database:
        parts = database.execute("SELECT part FROM part_heartbeats").fetchall()
    assert ("reading opening",) in parts
    hanging = suspend(node, *READER)
    films = [film(number) for number in range(3)]
    for dataset in films:
        assert [outcome.status for outcome in node.send(dataset)] == [0x0000]
        wait_for_state(home_of(node), dataset, StudyState.READY)
    with Redis.from_url((home_of(node) / "broker" / "url").read_text().strip()) as broker:
        waited_for(lambda: broker.llen("reading") >= len(films), "the wake-ups in the queue")
        broker.flushall()
    for dataset in films:
        assert outcome_of(home_of(node), dataset) is StudyState.DONE
    assert not set(hanging) & set(processes_of(home_of(node), *READER))
    assert len(pacs.arrivals()) == 2 * len(films)


def test_a_study_whose_association_died_with_the_listener_is_read_at_once(
    node: RunningNode,
) -> None:
    dataset = film(1)
    entity = AE("MODALITY")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", node.address.port, ae_title="MULTIMIX")
    assert association.send_c_store(dataset).Status == 0x0000
    kill(node, "listen")
    assert outcome_of(home_of(node), dataset) is StudyState.DONE, "not after the longest wait"


def test_a_node_with_a_worker_that_hangs_stops_in_time_and_goes_on_at_its_next_start(
    tmp_path: Path, pacs: StorageScpPacs
) -> None:
    settings = {"lease_seconds": "3", "shutdown_seconds": str(SHUTDOWN_SECONDS)}
    first = film(1)
    films = [first, *(study_mate(first, number) for number in range(2, 9))]
    with running_node(tmp_path / "node", pacs, **settings) as node:
        assert {outcome.status for outcome in node.send(*films)} == {0x0000}
        wait_for_state(home_of(node), first, StudyState.RUNNING)
        suspend(node, *READER)
        node.process.terminate()
        node.process.wait(timeout=SHUTDOWN_SECONDS + 5)
        assert processes_of(home_of(node)) == []
    with running_node(tmp_path / "node", pacs, **settings) as node:
        assert outcome_of(home_of(node), first) is StudyState.DONE
    assert len(pacs.arrivals()) == 2 * len(films)


def study_mate(first: Dataset, seed: int) -> Dataset:
    """Another film of the same study."""
    dataset = film(seed)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        first.StudyInstanceUID,
        first.SeriesInstanceUID,
    )
    return dataset


@contextmanager
def silent_server() -> Iterator[int]:
    """Takes TCP connections and never says a word; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:  # the server was closed
                return

        taking = threading.Thread(target=take)
        taking.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        taking.join()
        for connection in held:
            connection.close()


def test_a_target_that_never_answers_delays_no_other_target(
    tmp_path: Path, pacs: StorageScpPacs
) -> None:
    with silent_server() as port:
        targets = f"SILENT@127.0.0.1:{port}, DEMOPACS@127.0.0.1:{pacs.port}"
        with running_node(tmp_path / "node", None, targets=targets) as node:
            films = [film(number) for number in range(2)]
            for dataset in films:
                node.send(dataset)
            waited_for(lambda: len(pacs.arrivals()) == 2 * len(films), "all results at the other")
            assert states_at(node, "SILENT") == [DeliveryState.PENDING] * 2 * len(films)
            study = node.study(films[0].StudyInstanceUID)
    assert study is not None
    assert study["state"] == "delivering"


def states_at(node: RunningNode, target: str) -> list[DeliveryState]:
    database = Database(f"sqlite:///{home_of(node)}/node.sqlite")
    try:
        with database.reading() as session:
            states = select(Delivery.state).join(Delivery.peer).where(Peer.name == target)
            return list(session.scalars(states))
    finally:
        database.close()
