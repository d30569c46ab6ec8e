"""A node without network and queue: its parts on one database and store, driven by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from pydicom import Dataset
from sqlalchemy import select

from dicom_io.findings import ModelIdentity
from dicom_io.storage import InstanceStore
from tests.dicom_io.sources import MODEL
from tests.worker.arrivals import Clock, association
from tests.worker.readings import DrawnReading, bring, reader_of
from worker.addresses import Target
from worker.backoff import Backoff
from worker.database import Database
from worker.delivery import DeliveryRules, ResultSender, Send
from worker.intake import DatabaseIntake
from worker.models import register_model
from worker.peers import enter_targets
from worker.study_reading import ReadingRules, StudyReader
from worker.sweeping import Sweeper, SweepRules
from worker.tables import Delivery, Event, Inference, Instance, Peer, Result, Study

READING_RULES = ReadingRules(
    lease=timedelta(seconds=15),
    most_attempts=3,
    slice_seconds=60,
    backoff=Backoff(first_seconds=5, longest_seconds=900),
)
DELIVERY_RULES = DeliveryRules(
    ae_title="MULTIMIX",
    lease=timedelta(seconds=15),
    batch=4,
    backoff=Backoff(first_seconds=5, longest_seconds=900),
    give_up_after=timedelta(hours=72),
)


@dataclass
class RecordingWaker:
    """A queue that only remembers what was put into it."""

    readers: list[int] = field(default_factory=list)
    senders: list[int] = field(default_factory=list)
    heartbeats: list[str] = field(default_factory=list)
    away: bool = False

    def wake_reader(self, study_key: int) -> bool:
        if not self.away:
            self.readers.append(study_key)
        return not self.away

    def wake_sender(self, peer_key: int) -> bool:
        if not self.away:
            self.senders.append(peer_key)
        return not self.away

    def ask_for_sign_of_life(self, queue: str) -> bool:
        self.heartbeats.append(queue)
        return not self.away

    def waiting(self, queue: str) -> int | None:
        return None if self.away else len(self.readers)


class Bench:
    """Everything that a study passes through."""

    def __init__(self, database: Database, folder: Path, *targets: Target) -> None:
        self.database = database
        self.clock = Clock()
        self.store = InstanceStore(folder)
        self.waker = RecordingWaker()
        self.intake = DatabaseIntake(
            database,
            "bench:1",
            timedelta(seconds=3),
            timedelta(minutes=10),
            self.clock,
            self.store,
        )
        self.sweeper = Sweeper(database, self.waker, SweepRules(most_attempts=3), self.clock)
        with database.writing() as session:
            enter_targets(session, targets)

    def receive(self, *films: Dataset) -> None:
        """Take films in one association that is released, and let the quiet time pass."""
        one = association()
        self.intake.association_accepted(one)
        for film in films:
            bring(film, self.store, self.intake, one)
        self.intake.association_ended(one, released=True)
        self.clock.forward(3)
        self.sweeper.sweep()

    def reader(
        self,
        model: ModelIdentity = MODEL,
        read: Callable[[Dataset], DrawnReading] | None = None,
        **rules: object,
    ) -> StudyReader:
        with self.database.writing() as session:
            model_key = register_model(session, model, self.clock())
        return StudyReader(
            self.database,
            self.store,
            model_key,
            read or reader_of(model),
            replace(READING_RULES, **rules),
            self.clock,
        )

    def sender(self, send: Send, **rules: object) -> ResultSender:
        return ResultSender(
            self.database, self.store, send, replace(DELIVERY_RULES, **rules), self.clock
        )

    def study(self, study_key: int = 1) -> Study:
        with self.database.reading() as session:
            return session.get_one(Study, study_key)

    def all(self, table: type) -> list:
        with self.database.reading() as session:
            key = next(iter(table.__table__.primary_key))
            return list(session.scalars(select(table).order_by(key)))

    @property
    def instances(self) -> list[Instance]:
        return self.all(Instance)

    @property
    def inferences(self) -> list[Inference]:
        return self.all(Inference)

    @property
    def results(self) -> list[Result]:
        return self.all(Result)

    @property
    def deliveries(self) -> list[Delivery]:
        return self.all(Delivery)

    @property
    def peers(self) -> list[Peer]:
        return self.all(Peer)

    @property
    def steps(self) -> list[str]:
        """The states that studies went into, in order."""
        return [e.detail["target"] for e in self.all(Event) if e.kind == "study step"]


PACS = Target(name="PACS", ae_title="PACS", host="127.0.0.1", port=4242)
ARCHIVE = Target(name="ARCHIVE", ae_title="ARCHIVE", host="127.0.0.1", port=4243)
