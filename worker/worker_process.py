"""What one worker process works with; opened in the process itself, never before a fork.

Torch must not run in the parent of forked workers, and a database connection must not be shared
over a fork; so this module imports the model only when a process opens.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

from pydicom import Dataset

from dicom_io.commitment_service import request_commitment
from dicom_io.decoding import DecodingProcess
from dicom_io.dicomweb import DicomWebService
from dicom_io.dicomweb_storage import store
from dicom_io.errors import ImageRejected
from dicom_io.findings import ModelIdentity
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.result_set import build_result_set
from dicom_io.sender import SendOutcome, send
from dicom_io.storage import InstanceStore
from dicom_io.uids import ResultKind
from worker.backoff import Backoff
from worker.clock import utc_now
from worker.commitment_requests import CommitmentRequester, CommitmentRules
from worker.connections import remote_at, require_usable_tls_files, web_service_at
from worker.database import Database
from worker.delivery import DeliveryRules, Recipient, ResultSender
from worker.heartbeat import Heartbeat
from worker.models import register_model
from worker.peers import enter_targets
from worker.queueing import DELIVERY_QUEUE, READING_QUEUE
from worker.settings import Settings
from worker.signs_of_life import EVERY_SECONDS, opening, show_sign_of_life
from worker.study_reading import ReadingRules, ReadInstance, StudyReader

_LOG = logging.getLogger(__name__)


class WorkerProcess:
    """Database, store, sender and, where films are read, the model.

    Args:
        settings: of the node.
        reads: whether the process reads films, and so needs the model.

    Raises:
        SettingsError: the database's schema is not the one of this program.
        CheckpointError: the model directory is damaged, its model lacks a task, or its version
            names other weights here.
    """

    def __init__(self, settings: Settings, reads: bool) -> None:
        self._settings = settings
        self._shown: dict[str, float] = {}  # by queue, on the monotonic clock
        self.database = Database(settings.resolved_database_url)
        self.database.wait_until_reachable()
        self.database.require_current_schema()
        self.store = InstanceStore(settings.store_directory, settings.results_low_water_mark_bytes)
        with self.database.writing() as session:
            enter_targets(session, settings.targets)
        require_usable_tls_files(settings)
        self.sender = ResultSender(self.database, self.store, self._send, delivery_rules(settings))
        self.commitments = CommitmentRequester(
            self.database,
            request_commitment,
            partial(remote_at, settings),
            commitment_rules(settings),
        )
        self.reader = self._open_reader() if reads else None

    def read_study(self, study_key: int) -> list[int]:
        """Read a study; see ``StudyReader.read_study``."""
        # Behind a long queue the heartbeat tasks come late; whoever takes work lives as well.
        self.answer_heartbeat(READING_QUEUE)
        if self.reader is None:
            self.reader = self._open_reader()
        return self.reader.read_study(study_key)

    def deliver_to(self, peer_key: int) -> None:
        """Send what is due to a target, and ask it to commit to what it has, where it is to."""
        self.answer_heartbeat(DELIVERY_QUEUE)
        self.sender.deliver_to(peer_key)
        self.commitments.ask(peer_key)

    def answer_heartbeat(self, queue: str) -> None:
        """Note that a task of this queue was taken just now, once in a while."""
        now = time.monotonic()
        if now - self._shown.get(queue, -EVERY_SECONDS) >= EVERY_SECONDS:
            show_sign_of_life(self.database, queue, utc_now())
            self._shown[queue] = now

    def _send(self, paths: Sequence[Path], recipient: Recipient) -> list[SendOutcome]:
        """Send as the settings say that this target is called."""
        if isinstance(recipient, DicomWebService):
            return store(paths, web_service_at(self._settings, recipient.url))
        return send(
            paths,
            remote_at(self._settings, recipient.ae_title, recipient.host, recipient.port),
        )

    def _open_reader(self) -> StudyReader:
        """Load the model, and show meanwhile that no task is taken because of this."""

        def show() -> bool:
            show_sign_of_life(self.database, opening(READING_QUEUE), utc_now())
            return True

        show()
        with Heartbeat(show, EVERY_SECONDS):
            return self._make_reader()

    def _make_reader(self) -> StudyReader:
        from worker.reading import Reading, load_model, read_radiograph

        settings = self._settings
        _share_processors(settings.reader_processes)
        predictor = load_model(settings.model_directory, settings.device)
        card = predictor.card
        with self.database.writing() as session:
            identity = ModelIdentity(card.name, card.version, card.weights_sha256)
            model_key = register_model(session, identity, utc_now())

        decoding = DecodingProcess(settings.decoding_limits)

        def read(dataset: Dataset) -> Reading:
            return read_radiograph(dataset, predictor, decoding.decode)

        _warm_up(read, decoding.open)
        _LOG.info("model %s %s is loaded", card.name, card.version)
        return StudyReader(
            self.database,
            self.store,
            model_key,
            read,
            reading_rules(settings),
            open_file=decoding.open,
        )


def reading_rules(settings: Settings) -> ReadingRules:
    """The settings' rules of reading."""
    return ReadingRules(
        lease=settings.lease,
        most_attempts=settings.most_attempts,
        slice_seconds=settings.reading_time_limit_seconds / 2,
        backoff=Backoff(settings.retry_seconds, settings.longest_retry_seconds),
    )


def delivery_rules(settings: Settings) -> DeliveryRules:
    """The settings' rules of delivery."""
    return DeliveryRules(
        ae_title=settings.ae_title,
        lease=settings.lease,
        batch=settings.send_batch,
        backoff=Backoff(settings.retry_seconds, settings.longest_retry_seconds),
        give_up_after=settings.give_up_after,
    )


def commitment_rules(settings: Settings) -> CommitmentRules:
    """The settings' rules of asking targets for storage commitment."""
    return CommitmentRules(
        wait=timedelta(seconds=settings.commitment_wait_seconds),
        backoff=Backoff(settings.retry_seconds, settings.longest_retry_seconds),
        give_up_after=settings.give_up_after,
    )


def _warm_up(read: ReadInstance, open_file: Callable[[Path], Dataset]) -> None:
    """Read a drawn film: the first reading loads fonts and codes, and shall not be a patient's."""
    with NamedTemporaryFile(suffix=".dcm") as file:
        phantom_dataset(draw_phantom(0, 256, 256)).save_as(file, enforce_file_format=True)
        file.flush()
        phantom = open_file(Path(file.name))
        _read_phantom(phantom, read)


def _read_phantom(phantom: Dataset, read: ReadInstance) -> None:
    try:
        reading = read(phantom)
        build_result_set(phantom, reading.display_hw, reading.findings, utc_now(), set(ResultKind))
    except ImageRejected as rejection:
        _LOG.warning("the model finds no chest in a drawn film: %s", rejection)


def _share_processors(processes: int) -> None:
    """Several readers that each use all processor cores would only hinder each other."""
    import torch

    if processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
