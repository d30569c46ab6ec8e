"""The right to erasure in a running node: a purge leaves the log and nothing of the patient."""

import json
from collections.abc import Iterator
from pathlib import Path

from redis import Redis
from sqlalchemy import select

from tests.worker.nodes import RunningNode, running_node, waited_for
from tests.worker.test_patient_data import film
from worker.database import Database
from worker.embedded_broker import broker_url
from worker.queueing import READING_QUEUE, Waker, create_app
from worker.settings import Settings
from worker.tables import Study


def files_with(node: RunningNode, text: bytes) -> list[str]:
    """Files of the node that hold a text: store, logs, and the pages of the database's files."""
    found = (path for path in node.folder.rglob("*") if path.is_file())
    return [path.name for path in found if text in path.read_bytes()]


def held_by_broker(settings: Settings) -> Iterator[bytes]:
    """Everything that the broker has in memory; its append-only file is among the files."""
    with Redis.from_url(broker_url(settings)) as broker:
        for key in broker.keys("*"):
            yield key + (broker.dump(key) or b"")


def is_done_with(settings: Settings, queue: str) -> bool:
    """Whether no message of a queue waits or is being worked on."""
    with Redis.from_url(broker_url(settings)) as broker:
        return not broker.llen(queue) and not broker.hlen("unacked")


def key_of(settings: Settings, study_uid: str) -> int:
    database = Database(settings.resolved_database_url)
    try:
        with database.reading() as session:
            return session.scalars(
                select(Study.study_key).where(Study.study_uid == study_uid)
            ).one()
    finally:
        database.close()


def test_a_purge_leaves_the_log_and_nothing_of_the_patient(tmp_path: Path) -> None:
    erased, kept = film(1), film(2)
    kept.PatientName = "Sparrow^Other"
    uid = str(erased.StudyInstanceUID)
    with running_node(tmp_path / "node", None, targets="AWAY=AWAY@127.0.0.1:1") as node:
        settings = Settings(home=Path(node.environment["MULTIMIX_HOME"]))
        node.send(erased, kept)
        node.wait_for(uid, "delivering")  # it waits for a target that is away
        assert len(files_with(node, b"Canary^Bird")) > 1, "the original and its results"

        assert "is erased" in node.command("purge", "--yes", uid)

        assert files_with(node, b"Canary^Bird") == []
        assert files_with(node, b"Sparrow^Other") != []
        assert [held for held in held_by_broker(settings) if b"Canary" in held] == []

        # A wake-up that is still on its way wakes somebody who finds nothing to do.
        waker = Waker(create_app(settings, broker_url(settings)))
        waker.wake_reader(key_of(settings, uid))
        waited_for(lambda: is_done_with(settings, READING_QUEUE), "the wake-up to be dealt with")
        study = node.study(uid)
        assert study is not None
        assert (study["state"], study["instances"]) == ("removed", [])
        assert files_with(node, b"Canary^Bird") == []
        told = json.loads(node.command("audit", "--json", uid))
        (entry,) = [entry for entry in told if entry["kind"] == "study removed"]
        assert entry["detail"]["operator"]
        assert entry["detail"]["instances"] == 1
        assert entry["detail"]["results"] > 1
        assert "canary" not in json.dumps(told).lower()
