"""A claimed study is read: instance by instance, each settled in a transaction of its own.

Whatever ends the worker in between, nothing that was settled is done twice, and what was under way
has been counted as an attempt before it began.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom import Dataset
from sqlalchemy.orm import Session

from dicom_io.decoding_source import read_source
from dicom_io.errors import ImageRejected, LeaseLost, MultiMixError, OutOfSpace
from dicom_io.result_set import build_result_set
from dicom_io.storage import InstanceStore, StoredInstance
from dicom_io.uids import ResultKind
from worker.after_reading import finish, hand_back, hand_back_failed, wait_for_room
from worker.backoff import Backoff
from worker.clock import utc_now
from worker.columns import REASON_LENGTH
from worker.database import Database
from worker.dispatching import kinds_to_make
from worker.events import EventKind, record
from worker.heartbeat import Heartbeat
from worker.kept_files import entered_or_deleted, require_files
from worker.results import (
    InstanceReading,
    StoredResult,
    count_attempt,
    older_results,
    settle_with_results,
    settle_without_result,
    unsettled_instances,
)
from worker.study_steps import StudyLease, change_under_lease, claim, renew
from worker.tables import Inference, InferenceState, Instance, Model

_LOG = logging.getLogger(__name__)

ReadInstance = Callable[[Dataset], InstanceReading]


@dataclass(frozen=True)
class ReadingRules:
    """How long and how often.

    Attributes:
        lease: after so long without a sign of life the study is taken back.
        most_attempts: how often an instance is tried.
        slice_seconds: a study that takes longer is handed back between two instances, so that
            others get their turn and no time limit strikes.
        backoff: pauses before a study is tried again.
    """

    lease: timedelta
    most_attempts: int
    slice_seconds: float
    backoff: Backoff


class StudyReader:
    """Reads studies with one model; the database says which and keeps what came of them.

    Args:
        database: where studies wait.
        store: where instances lie and results go.
        model_key: the model's row.
        read: turns one instance into a reading, or raises ``ImageRejected``.
        open_file: reads a stored instance, or raises ``ImageRejected``.
        rules: how long and how often.
        now: the clock.
    """

    def __init__(
        self,
        database: Database,
        store: InstanceStore,
        model_key: int,
        read: ReadInstance,
        rules: ReadingRules,
        now: Callable[[], datetime] = utc_now,
        open_file: Callable[[Path], Dataset] = read_source,
    ) -> None:
        self._database = database
        self._store = store
        self._model_key = model_key
        self._read = read
        self._open_file = open_file
        self._rules = rules
        self._now = now

    def read_study(self, study_key: int) -> list[int]:
        """Claim a study and read what is new in it.

        A study that is not ready, or that another worker holds, is left alone; so being called
        twice, or late, does no harm.

        Returns:
            Keys of the peers for which results now wait.
        """
        with self._database.writing() as session:
            lease = claim(session, study_key, self._now(), self._rules.lease)
        if lease is None:
            return []
        try:
            with Heartbeat(
                lambda: self._renew(lease), self._rules.lease.total_seconds() / 3
            ) as held:
                if self._read_instances(lease, held):
                    return self._finish(lease)
                self._hand_back(lease)
        except LeaseLost:
            # The study has grown, or was taken back; whoever holds it next goes on from here.
            _LOG.info("study %d is no longer ours", study_key)
        except OutOfSpace as cause:
            _LOG.error("study %d waits for room on the disk: %s", study_key, cause)
            self._wait_for_room(lease, str(cause))
        except Exception as cause:
            self._hand_back_failed(lease, type(cause).__name__)
            raise
        return []

    def _renew(self, lease: StudyLease) -> bool:
        with self._database.writing() as session:
            return renew(session, lease, self._now() + self._rules.lease)

    def _read_instances(self, lease: StudyLease, held: Heartbeat) -> bool:
        """Read what is not settled; False if the time was over before the end."""
        started = time.monotonic()
        with self._database.reading() as session:
            instances = unsettled_instances(session, lease.study_key, self._model_key)
        for number, instance in enumerate(instances):
            if number and time.monotonic() - started > self._rules.slice_seconds:
                return False
            held.require_held()
            self._read_instance(lease, instance)
        return True

    def _read_instance(self, lease: StudyLease, instance: Instance) -> None:
        attempt = self._begin_attempt(lease, instance)
        if attempt is None:
            return
        started = time.monotonic()
        try:
            source = self._open(instance)
            reading = self._read(source)
            results = self._build_results(instance, source, reading)
            # Results must not refer to a film that is no longer what was read.
            self._store.verify(instance.relative_path, instance.sha256)
            stored = self._keep_results(lease, results)
        except ImageRejected as rejection:
            self._settle_rejected(lease, attempt, rejection)
        except OutOfSpace:
            # The disk is full, which says nothing against the film: it keeps its attempts.
            self._take_back_attempt(lease, attempt)
            raise
        except Exception as cause:  # noqa: BLE001 - one bad film must not stop its neighbours
            self._settle_failed_attempt(lease, attempt, cause)
        else:
            self._settle_read(lease, attempt, reading, stored, time.monotonic() - started)

    def _begin_attempt(self, lease: StudyLease, instance: Instance) -> int | None:
        """Count the attempt; None if the instance has had all of its attempts."""
        now = self._now()
        with self._under_lease(lease) as session:
            inference = count_attempt(session, instance, self._model_key, lease.revision, now)
            if inference.attempts <= self._rules.most_attempts:
                session.flush()
                return inference.inference_key
            reason = inference.reason or f"its reading ended the worker {inference.attempts - 1} x"
            self._settle_failed(session, lease, inference, reason)
        return None

    def _take_back_attempt(self, lease: StudyLease, inference_key: int) -> None:
        with self._under_lease(lease) as session:
            session.get_one(Inference, inference_key).attempts -= 1

    def _open(self, instance: Instance) -> Dataset:
        """Read the source, if it still is what was received."""
        self._store.verify(instance.relative_path, instance.sha256)
        return self._open_file(self._store.path_of(instance.relative_path))

    def _build_results(
        self, instance: Instance, source: Dataset, reading: InstanceReading
    ) -> dict[ResultKind, Dataset]:
        """Every object that a target is to get, or that may have to stand in for one."""
        with self._database.reading() as session:
            kinds = kinds_to_make(session)
            older = older_results(session, instance, self._model_key)
        return build_result_set(
            source,
            reading.display_hw,
            reading.findings,
            self._now(),
            kinds.wanted,
            spares=kinds.spares,
            replaces=older.versions,
            predecessor_version=older.report_version,
        )

    def _keep_results(
        self, lease: StudyLease, results: Mapping[ResultKind, Dataset]
    ) -> list[StoredResult]:
        """Make all of them durable, or leave none."""
        kept: list[StoredInstance] = []
        with entered_or_deleted(self._database, self._store, lease.study_key, kept):
            for dataset in results.values():
                kept.append(self._store.keep_dataset(dataset))
        return [
            StoredResult(kind, stored, str(dataset.SeriesInstanceUID))
            for (kind, dataset), stored in zip(results.items(), kept, strict=True)
        ]

    def _settle_read(
        self,
        lease: StudyLease,
        inference_key: int,
        reading: InstanceReading,
        stored: list[StoredResult],
        seconds: float,
    ) -> None:
        kept = [made.stored for made in stored]
        with (
            entered_or_deleted(self._database, self._store, lease.study_key, kept),
            self._progress_under_lease(lease) as session,
        ):
            require_files(self._store, kept)
            inference = session.get_one(Inference, inference_key)
            settle_with_results(
                session, inference, lease.study_key, reading, stored, self._now(), seconds
            )
            # No findings: the log outlives the study, also one whose erasure a patient asked for.
            results = {made.kind.value: made.stored.sop_instance_uid for made in stored}
            self._log(session, EventKind.INSTANCE_READ, lease, inference, {"results": results})

    def _settle_rejected(
        self, lease: StudyLease, inference_key: int, rejection: ImageRejected
    ) -> None:
        reason = str(rejection).removeprefix("rejected: ")
        with self._progress_under_lease(lease) as session:
            inference = session.get_one(Inference, inference_key)
            settle_without_result(
                inference, InferenceState.REJECTED, reason, self._now(), rejection.reason.name
            )
            self._log(session, EventKind.INSTANCE_REJECTED, lease, inference, {"reason": reason})

    def _settle_failed_attempt(
        self, lease: StudyLease, inference_key: int, cause: Exception
    ) -> None:
        reason = _reason_of(cause)
        _LOG.error("study %d: an instance could not be read: %s", lease.study_key, reason)
        with self._under_lease(lease) as session:
            inference = session.get_one(Inference, inference_key)
            inference.reason = reason[:REASON_LENGTH]
            if inference.attempts >= self._rules.most_attempts:
                self._settle_failed(session, lease, inference, reason)

    def _settle_failed(
        self, session: Session, lease: StudyLease, inference: Inference, reason: str
    ) -> None:
        settle_without_result(inference, InferenceState.FAILED, reason, self._now())
        change_under_lease(session, lease, attempts=0)
        self._log(session, EventKind.INSTANCE_FAILED, lease, inference, {"reason": reason})

    def _finish(self, lease: StudyLease) -> list[int]:
        with self._under_lease(lease) as session:
            return finish(session, lease, self._model_key, self._rules.backoff, self._now())

    def _hand_back(self, lease: StudyLease) -> None:
        with self._database.writing() as session:
            hand_back(session, lease, self._now())

    def _hand_back_failed(self, lease: StudyLease, problem: str) -> None:
        rules = self._rules
        with self._database.writing() as session:
            hand_back_failed(
                session, lease, rules.backoff, rules.most_attempts, problem, self._now()
            )

    def _wait_for_room(self, lease: StudyLease, reason: str) -> None:
        with self._database.writing() as session:
            wait_for_room(session, lease, self._rules.backoff, reason, self._now())

    @contextmanager
    def _under_lease(self, lease: StudyLease, **changes: object) -> Iterator[Session]:
        """A transaction that counts only if the lease is held at its end.

        Raises:
            LeaseLost: it is not; nothing was changed.
        """
        with self._database.writing() as session:
            until = self._now() + self._rules.lease
            # The update also locks the study's row, so that the lease cannot go in between.
            if not change_under_lease(session, lease, lease_expires_at=until, **changes):
                raise LeaseLost(f"study {lease.study_key} was taken over or has grown")
            yield session

    def _progress_under_lease(self, lease: StudyLease) -> AbstractContextManager[Session]:
        """As ``_under_lease``, and attempts that made no progress count anew from here."""
        return self._under_lease(lease, attempts=0)

    def _log(
        self,
        session: Session,
        kind: EventKind,
        lease: StudyLease,
        inference: Inference,
        detail: dict[str, Any],
    ) -> None:
        instance = session.get_one(Instance, inference.instance_key)
        record(
            session,
            kind,
            self._now(),
            study_key=lease.study_key,
            detail={
                "sop_instance_uid": instance.sop_instance_uid,
                "attempts": inference.attempts,
                "model_version": session.get_one(Model, inference.model_key).version,
                **detail,
            },
        )


def _reason_of(cause: Exception) -> str:
    """What may be told of an error: ours in full; of others the kind, for they may quote data."""
    return str(cause) if isinstance(cause, MultiMixError) else f"internal: {type(cause).__name__}"
