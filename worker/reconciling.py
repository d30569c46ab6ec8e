"""Store and database compared both ways: what a crash, a full disk or a restored backup left apart.

A file that no row names was never acknowledged, or the database is older than the store: a received
one is entered as if it came now, a result of ours is deleted, since reading again makes the same
one. A row whose file is gone or has another length is told in the event log; the study that needs
it fails with its reason.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from pydicom.filereader import read_file_meta_info
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.access_control import AssociationFacts
from dicom_io.errors import MultiMixError, StorageError
from dicom_io.instance_header import read_identifiers, read_model_name
from dicom_io.intake import Intake
from dicom_io.storage import InstanceStore, StoredInstance
from dicom_io.storage_service import keep_instance
from dicom_io.uids import MANUFACTURER_MODEL_NAME
from worker.clock import utc_now
from worker.database import Database
from worker.events import EventKind, record
from worker.kept_files import delete_unnamed
from worker.named_files import (
    FOLDERS,
    SETTLED_AFTER_SECONDS,
    NamedFile,
    named_among,
    named_files,
)
from worker.tables import Study

_LOG = logging.getLogger(__name__)

LOOK_EVERY_SECONDS: Final = 3600.0
_CALLING: Final = "RECONCILER"


@dataclass
class Differences:
    """What was found, and what was done about it.

    Attributes:
        files: looked at on the disk.
        entered: received instances that no row named, entered now.
        results_deleted: results that no row named.
        unreadable: files that no row names and that are no DICOM objects; they stay.
        missing: paths of rows whose file is gone.
        changed: paths of rows whose file has another length.
    """

    files: int = 0
    entered: list[str] = field(default_factory=list)
    results_deleted: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every file had its row and every row its file."""
        found = (self.entered, self.results_deleted, self.unreadable, self.missing, self.changed)
        return not any(found)


class Reconciler:
    """Compares a store with a database, one of 256 folders at a time, so that memory is bounded.

    Args:
        database: with the current schema.
        store: the files.
        intake: where instances without a row are entered.
        settled_after_seconds: age below which a file without a row is left alone.
        repair: whether to enter and delete; else only to look.
        now: the clock.
    """

    def __init__(
        self,
        database: Database,
        store: InstanceStore,
        intake: Intake,
        *,
        settled_after_seconds: float = SETTLED_AFTER_SECONDS,
        repair: bool = True,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._store = store
        self._intake = intake
        self.settled_after_seconds = settled_after_seconds
        self._repair = repair
        self._now = now

    def reconcile(self, should_stop: Callable[[], bool] = lambda: False) -> Differences:
        """Compare everything once.

        Args:
            should_stop: asked between folders; what is left is looked at next time.

        Raises:
            StorageError: the store cannot be read.
        """
        found = Differences()
        if self._repair:
            self._store.disk.remove_abandoned_parts()
        for folder in FOLDERS:
            if should_stop():
                break
            self._compare(folder, found)
        self._tell(found)
        return found

    def settle_lately_written(
        self, since: float, should_stop: Callable[[], bool] = lambda: False
    ) -> Differences:
        """Settle what was written since then and has no row; of the rest nothing is looked at.

        Only folders that have changed are listed, and rows are asked for by path, so that a big
        store costs little and what is missing is not told again and again.

        Args:
            since: seconds since the epoch.
            should_stop: asked between folders.

        Raises:
            StorageError: the store cannot be read.
        """
        found = Differences()
        if self._repair:
            self._store.disk.remove_abandoned_parts()
        lately: list[str] = []
        for folder in FOLDERS:
            if should_stop():
                return found
            kept = self._store.lately_kept_paths(folder, since)
            lately += [path for path in kept if self._is_settled(path)]
        found.files = len(lately)
        with self._database.reading() as session:
            named = named_among(session, lately)
        self._settle_orphans(set(lately) - named, found)
        self._tell(found)
        return found

    def _compare(self, folder: str, found: Differences) -> None:
        # Rows first: a file that is deleted in between then looks missing, and is asked for again.
        with self._database.reading() as session:
            named = dict(named_files(session, f"instances/{folder}/"))
        present = set(self._store.relative_paths(folder))
        found.files += len(present)
        self._settle_orphans(present - named.keys(), found)
        for path, row in sorted(named.items()):
            if path not in present:
                if row.must_be_there and self._is_named_now(path):
                    found.missing.append(path)
                    self._report(path, row, "its file is gone")
            elif row.size is not None and not self._has_length(path, row.size):
                found.changed.append(path)
                self._report(path, row, "its file has another length")

    def _settle_orphans(self, paths: set[str], found: Differences) -> None:
        for path in sorted(paths):
            if self._is_settled(path) and not self._is_named_now(path):
                self._settle_orphan(path, found)

    def _is_settled(self, path: str) -> bool:
        try:
            written = self._store.path_of(path).stat().st_mtime
        except FileNotFoundError:
            return False
        return time.time() - written >= self.settled_after_seconds

    def _is_named_now(self, path: str) -> bool:
        with self._database.reading() as session:
            return next(named_files(session, path), None) is not None

    def _has_length(self, path: str, size: int) -> bool:
        try:
            return self._store.dataset_length(path) == size
        except StorageError:
            return False

    def _settle_orphan(self, path: str, found: Differences) -> None:
        # Only heads are read, and of deflated datasets a few MiB: nobody has vetted these files.
        try:
            meta = read_file_meta_info(self._store.path_of(path))
            uids = {
                "transfer_syntax_uid": str(meta.TransferSyntaxUID),
                "sop_class_uid": str(meta.MediaStorageSOPClassUID),
                "sop_instance_uid": str(meta.MediaStorageSOPInstanceUID),
            }
            encoded = self._store.read_encoded_dataset(path)
        except Exception as cause:  # noqa: BLE001 - pydicom raises whatever it likes
            _LOG.error("%s has no row and is not readable (%s)", path, type(cause).__name__)
            found.unreadable.append(path)
            return
        if read_model_name(encoded, uids["transfer_syntax_uid"]) == MANUFACTURER_MODEL_NAME:
            found.results_deleted.append(path)
            if self._repair:
                self._delete(path, encoded, uids)
        else:
            found.entered.append(path)
            if self._repair:
                self._enter(encoded, uids)

    def _delete(self, path: str, encoded: bytes, uids: Mapping[str, str]) -> None:
        """Delete a result under its study's lock, unless it has got its row by then."""
        study_uid = read_identifiers(encoded, uids["transfer_syntax_uid"]).study_uid
        sha256 = hashlib.sha256(encoded).hexdigest()
        file = StoredInstance(path, sha256, len(encoded), **uids)
        with self._database.writing() as session:
            session.scalar(
                select(Study.study_key).where(Study.study_uid == study_uid).with_for_update()
            )
            delete_unnamed(session, self._store, [file])

    def _enter(self, encoded: bytes, uids: Mapping[str, str]) -> None:
        """Enter an instance as if it had just come."""
        identifiers = read_identifiers(encoded, uids["transfer_syntax_uid"])
        facts = AssociationFacts(str(uuid.uuid4()), _CALLING, _CALLING, "store", self._now())
        self._intake.association_accepted(facts)
        try:
            instance = keep_instance(self._store, encoded, identifiers, **uids)
            self._intake.instance_stored(facts, instance)
        finally:
            self._intake.association_ended(facts, released=True)

    def _report(self, path: str, row: NamedFile, problem: str) -> None:
        _LOG.error("%s is named by a row, but %s; restore it from a backup", path, problem)
        if not self._repair:
            return
        with self._database.writing() as session:
            record(
                session,
                EventKind.FILE_DAMAGED,
                self._now(),
                study_key=row.study_key,
                detail={"path": path, "problem": problem},
            )

    def _tell(self, found: Differences) -> None:
        if found.is_clean:
            return
        _LOG.warning(
            "store and database differed: %d instances %s, %d results without a row, "
            "%d unreadable files, %d files missing, %d changed",
            len(found.entered),
            "entered" if self._repair else "to be entered",
            len(found.results_deleted),
            len(found.unreadable),
            len(found.missing),
            len(found.changed),
        )


def reconcile_quietly(
    reconciler: Reconciler, stop: threading.Event, every_seconds: float = LOOK_EVERY_SECONDS
) -> None:
    """Compare in the background of a part that has other work; a failure is logged.

    All of it twice: what a process that died a moment ago left behind is too young to tell from
    what another one is about to enter, and is old enough after a while. Then, until told to stop,
    what was written since the last look.
    """
    settled_after = reconciler.settled_after_seconds
    looked_at = time.time()
    for pause in (0.0, settled_after):
        if stop.wait(pause):
            return
        looked_at = time.time()
        _unless_away(lambda: reconciler.reconcile(stop.is_set))
    while not stop.wait(every_seconds):
        # What was too young at the last look is old enough now.
        since, began = looked_at - settled_after, time.time()
        if _unless_away(partial(reconciler.settle_lately_written, since, stop.is_set)):
            looked_at = began


def _unless_away(compare: Callable[[], object]) -> bool:
    """Whether a comparison came to its end; that the database or the disk is away is logged."""
    try:
        compare()
    except (MultiMixError, SQLAlchemyError) as cause:
        _LOG.warning("store and database were not compared (%s)", type(cause).__name__)
        return False
    return True
