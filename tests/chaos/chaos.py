"""A node under continuous sending while its parts are killed: what was acknowledged comes out.

    python -m tests.chaos.chaos --studies 300 --kills 30 --seed 1 [--servers]

ends with one line of JSON, and with status 0 only if nothing was lost and nothing doubled.
``--servers`` runs on PostgreSQL and Redis, which are killed too.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.part10 import dataset_offset, encode_dataset
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.sender import send
from dicom_io.storage import InstanceStore
from tests.chaos.servers import postgres_server, redis_server
from tests.worker.node_processes import broker_of, processes_of
from tests.worker.nodes import RunningNode, running_node
from worker.database import Database
from worker.demo_pacs import StorageScpPacs
from worker.queueing import QUEUES
from worker.signs_of_life import LISTENER, SWEEPER, signs_of_life
from worker.studies import StudyState
from worker.study_steps import FINAL_STATES
from worker.tables import Delivery, DeliveryState, Inference, Instance, Result, Study

FILM_SIDE = 128
RECOVERY_LIMIT_SECONDS = 120.0
# After the last kill; generous, since the machine may have other work too.
END_LIMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Plan:
    """What is sent and how often something is killed; ``seed`` decides what and when."""

    studies: int
    kills: int
    seed: int
    servers: bool = False


@dataclass
class Report:
    """What came of it; the last line that a run prints.

    Attributes:
        acknowledged: instances that were answered with success.
        on_disk: of these, those that lie in the store bit for bit.
        in_database: of these, those that have a row with their hash.
        delivered: studies whose one set of results is at the PACS as it was built.
        lost: acknowledged instances that miss anything of this.
        duplicated: results at the PACS that are not the current one of their film and kind, or that
            came a second time with other bytes.
        kills: what was killed.
        slowest_recovery_s: longest time from a kill until every part worked again.
    """

    acknowledged: int = 0
    on_disk: int = 0
    in_database: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    kills: int = 0
    slowest_recovery_s: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and nothing doubled."""
        return (
            not self.lost
            and not self.duplicated
            and self.acknowledged == self.on_disk == self.in_database == self.delivered
        )


@dataclass(frozen=True)
class Scene:
    """A running node with everything around it that can be killed."""

    node: RunningNode
    home: Path
    pacs: StorageScpPacs
    database: Database
    killers: dict[str, Callable[[], None]]


def run_chaos(plan: Plan, folder: Path) -> Report:
    """Carry out a plan in a folder of its own."""
    report = Report()
    with scene(plan, folder) as on_stage:
        sender = Sender(on_stage.node, plan)
        sender.start()
        kill_along(plan, on_stage, sender, report)
        sender.join()
        wait_for_the_end(on_stage, plan)
        judge(on_stage, sender.acknowledged, report)
    return report


@contextmanager
def scene(plan: Plan, folder: Path) -> Iterator[Scene]:
    """Node, PACS and, if wanted, servers."""
    with ExitStack() as stack:
        pacs_folder = folder / "pacs"
        pacs_folder.mkdir(parents=True)
        pacs = StorageScpPacs(pacs_folder)
        stack.callback(pacs.stop)
        settings = {"lease_seconds": "3"}
        killers: dict[str, Callable[[], None]] = {}
        if plan.servers:
            postgres = stack.enter_context(postgres_server())
            redis = stack.enter_context(redis_server(folder / "redis"))
            settings |= {"database_url": postgres.url, "broker_url": redis.url}
            killers |= {"database": postgres.kill, "broker": redis.kill}
        node = stack.enter_context(running_node(folder / "node", pacs, **settings))
        home = Path(node.environment["MULTIMIX_HOME"])
        if not plan.servers:
            killers["broker"] = lambda: os.kill(broker_of(node.process.pid), signal.SIGKILL)
        for part, words in {
            "listener": ("listen",),
            "sweeper": ("sweep",),
            "reader": ("-Q", "reading"),
            "sender": ("-Q", "delivery"),
        }.items():
            killers[part] = lambda words=words: kill_all(home, words)
        database = Database(settings.get("database_url", f"sqlite:///{home}/node.sqlite"))
        stack.callback(database.close)
        yield Scene(node, home, pacs, database, killers)


def kill_all(home: Path, words: tuple[str, ...]) -> None:
    """Kill every process of a part; one that is being started at this moment is killed too."""
    deadline = time.monotonic() + RECOVERY_LIMIT_SECONDS
    while not (found := processes_of(home, *words)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Sender(threading.Thread):
    """A modality that sends one film after the other, each until it is answered with success."""

    def __init__(self, node: RunningNode, plan: Plan) -> None:
        super().__init__(daemon=True)
        self._node = node
        self._plan = plan
        self.acknowledged: dict[str, str] = {}  # SOP Instance UID: SHA-256

    def run(self) -> None:
        for number in range(self._plan.studies):
            seed = self._plan.seed * 1_000_000 + number
            film = phantom_dataset(draw_phantom(seed, FILM_SIDE, FILM_SIDE))
            while not self._was_taken(film):
                time.sleep(0.2)
            encoded = encode_dataset(film, film.file_meta.TransferSyntaxUID)
            self.acknowledged[str(film.SOPInstanceUID)] = hashlib.sha256(encoded).hexdigest()

    def _was_taken(self, film: Dataset) -> bool:
        try:
            (outcome,) = send([film], self._node.address)
        except Exception:  # noqa: BLE001 - whatever it is, the film is sent again
            return False
        return outcome.status == 0x0000


def kill_along(plan: Plan, on_stage: Scene, sender: Sender, report: Report) -> None:
    """Kill a part at a random moment of each of ``kills`` stretches of the sending."""
    dice = random.Random(plan.seed)
    names = sorted(on_stage.killers)
    victims = [*names, *(dice.choice(names) for _ in range(plan.kills))][: plan.kills]
    dice.shuffle(victims)
    for number, victim in enumerate(victims):
        moment = plan.studies * (number + dice.random()) / plan.kills
        while len(sender.acknowledged) < moment and sender.is_alive():
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.5))
        began = time.monotonic()
        killed_at = datetime.now(UTC)
        on_stage.killers[victim]()
        seconds = wait_until_all_work(on_stage, killed_at, began)
        report.kills += 1
        report.slowest_recovery_s = max(report.slowest_recovery_s, round(seconds, 1))
        sys.stderr.write(f"{report.kills}: {victim} killed, back after {seconds:.1f} s\n")


def wait_until_all_work(on_stage: Scene, since: datetime, began: float) -> float:
    """Seconds until every part gave a sign of life that is younger than the kill."""
    parts = {LISTENER, SWEEPER, *QUEUES}
    while time.monotonic() - began < RECOVERY_LIMIT_SECONDS:
        try:
            with on_stage.database.reading() as session:
                if parts <= signs_of_life(session, since).keys():
                    return time.monotonic() - began
        except SQLAlchemyError:
            pass  # the database itself was killed
        time.sleep(0.1)
    raise AssertionError(f"not all parts came back within {RECOVERY_LIMIT_SECONDS} s")


def wait_for_the_end(on_stage: Scene, plan: Plan) -> None:
    """Wait until every study has ended."""
    deadline = time.monotonic() + END_LIMIT_SECONDS
    while time.monotonic() < deadline:
        with on_stage.database.reading() as session:
            states = list(session.scalars(select(Study.state)))
        if len(states) >= plan.studies and all(state in FINAL_STATES for state in states):
            return
        time.sleep(0.5)
    raise AssertionError(f"studies did not end within {END_LIMIT_SECONDS} s")


def judge(on_stage: Scene, acknowledged: dict[str, str], report: Report) -> None:
    """Compare what was acknowledged with disk, database and PACS."""
    store = InstanceStore(on_stage.home / "store")
    arrived = on_stage.pacs.arrivals()
    arrivals = set(arrived)
    report.acknowledged = len(acknowledged)
    current: set[str] = set()
    with on_stage.database.reading() as session:
        for sop_instance_uid, sha256 in acknowledged.items():
            row = session.scalar(
                select(Instance).where(Instance.sop_instance_uid == sop_instance_uid)
            )
            in_database = row is not None and row.sha256 == sha256
            on_disk = row is not None and _holds(store, row.relative_path, sha256)
            results = _results_of(session, sop_instance_uid)
            current |= {result.sop_instance_uid for result in results}
            is_done = row is not None and row.study.state is StudyState.DONE
            delivered = (
                is_done
                and len({result.kind for result in results}) == len(results) == 2
                and all(_arrived_as_built(on_stage, arrivals, result) for result in results)
            )
            report.in_database += in_database
            report.on_disk += on_disk
            report.delivered += delivered
            if not (in_database and on_disk and delivered):
                report.lost += 1
                state = row.study.state.value if row is not None else "unknown"
                report.complaints.append(f"{sop_instance_uid}: {state}, {len(results)} results")
    changed = {uid for uid, arrival in arrived.items() if not arrival.unchanged}
    report.duplicated = len((arrivals - current) | changed)


def _holds(store: InstanceStore, relative_path: str, sha256: str) -> bool:
    encoded = store.read_encoded_dataset(relative_path)
    return hashlib.sha256(encoded).hexdigest() == sha256


def _results_of(session, sop_instance_uid: str) -> list[Result]:
    """The current results of a film that were to be sent."""
    return list(
        session.scalars(
            select(Result)
            .join(Inference)
            .join(Instance)
            .where(
                Instance.sop_instance_uid == sop_instance_uid,
                Result.superseded_by_key.is_(None),
                Result.deliveries.any(Delivery.state == DeliveryState.DELIVERED),
            )
        )
    )


def _arrived_as_built(on_stage: Scene, arrivals: set[str], result: Result) -> bool:
    if result.sop_instance_uid not in arrivals:
        return False
    path = on_stage.home / "arrived.dcm"
    on_stage.pacs.fetch(result.sop_instance_uid, path)
    content = path.read_bytes()
    return hashlib.sha256(content[dataset_offset(content) :]).hexdigest() == result.sha256


def main() -> int:
    """Run by the command line's plan and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", action="store_true")
    plan = Plan(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        report = run_chaos(plan, Path(folder))
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
