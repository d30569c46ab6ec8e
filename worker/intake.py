"""What came is entered into the database before its sender is told success.

One transaction for each instance: its row, its study's state and the log, or nothing of it.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicom_io.access_control import AssociationFacts, Refusal
from dicom_io.errors import StorageError
from dicom_io.intake import ReceivedInstance
from dicom_io.storage import InstanceStore
from worker.clock import utc_now
from worker.database import Database, insert_if_absent
from worker.events import EventKind, record
from worker.intake_rows import (
    InstanceEntry,
    count_open_associations,
    enter_without_study,
    grow,
    is_corrected_by,
    known_instance,
    link,
    lock_study,
    locked_study,
    series_key_of,
    study_of_own_result,
)
from worker.kept_files import delete_unnamed
from worker.refusal_log import RefusalLog
from worker.studies import StudyState, due_at
from worker.tables import Association, AssociationStudy, Instance, InstanceConflict, Study

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _EndedAssociation:
    association_uid: str
    at: datetime
    released: bool


class DatabaseIntake:
    """Enters associations and instances into the database; called from many threads.

    Args:
        database: with the current schema.
        listener: name of the listener; the same after a restart, so that it can close what it
            left open, and different from that of any other listener on the same database.
        quiet: pause after the last change of a study before it is read.
        longest_wait: a study is read this long after its first instance at the latest.
        now: the clock.
        store: where the instances lie; None where nothing is ever deleted.
    """

    def __init__(
        self,
        database: Database,
        listener: str,
        quiet: timedelta,
        longest_wait: timedelta,
        now: Callable[[], datetime] = utc_now,
        store: InstanceStore | None = None,
    ) -> None:
        self._database = database
        self._listener = listener
        self._quiet = quiet
        self._longest_wait = longest_wait
        self._now = now
        self._store = store
        self._refusals = RefusalLog(database)
        self._unrecorded: list[_EndedAssociation] = []
        self._lock = threading.Lock()

    def close_abandoned_associations(self) -> int:
        """Close what this listener left open when it died; call it before listening again.

        Returns:
            How many associations were closed.
        """
        with self._database.reading() as session:
            abandoned = session.scalars(
                select(Association.association_uid).where(
                    Association.listener == self._listener, Association.ended_at.is_(None)
                )
            ).all()
        for association_uid in abandoned:
            self._end(_EndedAssociation(association_uid, self._now(), released=False))
        return len(abandoned)

    def association_accepted(self, association: AssociationFacts) -> None:
        """Note that an association is open."""
        with self._database.writing() as session:
            row = Association(
                association_uid=association.association_uid,
                listener=self._listener,
                calling_ae_title=association.calling_ae_title,
                called_ae_title=association.called_ae_title,
                host=association.peer_address,
                accepted_at=self._now(),
            )
            session.add(row)
            session.flush()
            record(
                session,
                EventKind.ASSOCIATION_ACCEPTED,
                row.accepted_at,
                association_key=row.association_key,
                detail={"calling": row.calling_ae_title, "host": row.host},
            )

    def instance_stored(self, association: AssociationFacts, instance: ReceivedInstance) -> None:
        """Enter one instance; when this returns, it is committed."""
        now = self._now()
        with self._database.writing() as session:
            association_key = session.execute(
                select(Association.association_key).where(
                    Association.association_uid == association.association_uid
                )
            ).scalar_one()
            entry = InstanceEntry(session, association_key, instance, now)
            own = self._locked_study_of_own_result(session, instance)
            if own is not None:
                self._ignore_own_result(entry, own)
            elif (known := self._locked_instance(session, instance)) is not None and (
                not is_corrected_by(known, instance)
            ):
                self._enter_again(entry, known)
            elif instance.study_uid is None:
                self._require_file(instance)
                enter_without_study(entry)
            else:
                self._enter(entry, instance.study_uid)

    def association_ended(self, association: AssociationFacts, released: bool) -> None:
        """Note that an association is over; its studies may now become quiet.

        Where the database is away, it is noted by the next ``retry_unrecorded``.
        """
        ended = _EndedAssociation(association.association_uid, self._now(), released)
        try:
            self._end(ended)
        except SQLAlchemyError:
            with self._lock:
                self._unrecorded.append(ended)
            raise

    def association_refused(self, association: AssociationFacts, reason: Refusal) -> None:
        """Note a refusal; many of one kind in a short time become one entry."""
        self._refusals.add(association, reason, self._now())

    def retry_unrecorded(self) -> None:
        """Note the ends of associations that the database could not take when they happened."""
        with self._lock:
            waiting, self._unrecorded = self._unrecorded, []
        for done, ended in enumerate(waiting):
            try:
                self._end(ended)
            except SQLAlchemyError:
                with self._lock:
                    self._unrecorded = waiting[done:] + self._unrecorded
                raise

    def _enter(self, entry: InstanceEntry, study_uid: str) -> None:
        session, now, instance = entry.session, entry.now, entry.instance
        study = locked_study(session, study_uid, now)
        self._require_file(instance)
        known = known_instance(session, instance.sop_instance_uid)
        if known is not None and not is_corrected_by(known, instance):
            # Another association brought it while this one waited for the study.
            self._enter_again(entry, known)
            return
        if study.state is not StudyState.RECEIVED:
            grow(session, study, now)
        series_key = None
        if instance.series_uid is not None:
            series_key = series_key_of(session, study.study_key, instance.series_uid)
        if known is None:
            entry.add_instance(study, series_key)
        else:
            lock_study(session, known.study_key)
            entry.correct(known, study, series_key)
        link(session, entry.association_key, study.study_key)
        self._postpone(session, study, now)

    def _locked_study_of_own_result(
        self, session: Session, instance: ReceivedInstance
    ) -> int | None:
        """The study for which this node made the object, locked; None if it is not ours."""
        own = study_of_own_result(session, instance.sop_instance_uid)
        if own is None:
            return None
        lock_study(session, own)
        # It may have been removed while this one waited for the lock.
        return study_of_own_result(session, instance.sop_instance_uid)

    def _ignore_own_result(self, entry: InstanceEntry, own: int) -> None:
        """Nothing is entered; a copy whose bytes a peer has changed must not lie about unnamed."""
        entry.log(EventKind.OWN_RESULT_IGNORED, own)
        if self._store is not None:
            delete_unnamed(entry.session, self._store, [entry.instance.stored])

    def _locked_instance(self, session: Session, instance: ReceivedInstance) -> Instance | None:
        """The instance of this UID that came first, with its study locked; None if it is new."""
        known = known_instance(session, instance.sop_instance_uid)
        if known is None:
            return None
        lock_study(session, known.study_key)
        self._require_file(instance)
        # Its study may have been removed while this one waited for the lock.
        return known_instance(session, instance.sop_instance_uid)

    def _require_file(self, instance: ReceivedInstance) -> None:
        """Refuse an instance whose file has been deleted since it was stored.

        The same bytes may have been kept before, by a study whose files are being deleted now.
        They are deleted under the lock of the study, so what is there under it stays.

        Raises:
            StorageError: the file is gone; the sender has to send it again.
        """
        stored = instance.stored
        if self._store is not None and not self._store.path_of(stored.relative_path).is_file():
            raise StorageError(
                f"instance {stored.sop_instance_uid} came while an older copy of it was deleted; "
                "send it again"
            )

    def _enter_again(self, entry: InstanceEntry, known: Instance) -> None:
        """The same SOP Instance UID again: the first one stays, whatever the bytes are now."""
        stored = entry.instance.stored
        if known.sha256 == stored.sha256:
            entry.log(EventKind.INSTANCE_REPEATED, known.study_key)
        else:
            insert_if_absent(
                entry.session,
                InstanceConflict,
                instance_key=known.instance_key,
                relative_path=stored.relative_path,
                sha256=stored.sha256,
                size=stored.size,
                received_at=entry.now,
            )
            entry.log(
                EventKind.INSTANCE_CONFLICT,
                known.study_key,
                kept_sha256=known.sha256,
                other_sha256=stored.sha256,
            )
            _LOG.warning(
                "study %d: an instance came again with other bytes; both are kept, the first "
                "counts; `audit` has the hashes",
                known.study_key,
            )
        study = lock_study(entry.session, known.study_key)
        if study.state is StudyState.RECEIVED:
            # It grows no further by this, but its sender is not done with it.
            link(entry.session, entry.association_key, study.study_key)
            self._postpone(entry.session, study, entry.now)

    def _end(self, ended: _EndedAssociation) -> None:
        with self._database.writing() as session:
            key = session.execute(
                update(Association)
                .where(
                    Association.association_uid == ended.association_uid,
                    Association.ended_at.is_(None),
                )
                .values(ended_at=ended.at, released=ended.released)
                .returning(Association.association_key)
            ).scalar_one_or_none()
            if key is None:
                return
            record(
                session,
                EventKind.ASSOCIATION_ENDED,
                ended.at,
                association_key=key,
                detail={"released": ended.released},
            )
            brought = select(AssociationStudy.study_key).where(
                AssociationStudy.association_key == key
            )
            # In the order of keys, so that two associations that end together wait for each
            # other instead of locking each other out.
            for study_key in session.scalars(brought.order_by(AssociationStudy.study_key)).all():
                study = lock_study(session, study_key)
                if study.state is StudyState.RECEIVED:
                    self._postpone(session, study, ended.at)

    def _postpone(self, session: Session, study: Study, changed: datetime) -> None:
        """Set anew when the study becomes ready.

        Times that are still to come were taken from a clock that was ahead and has been corrected.
        """
        session.flush()
        now = self._now()
        study.last_change_at = min(max(study.last_change_at, changed), now)
        study.revision_started_at = min(study.revision_started_at, now)
        study.ready_at = due_at(
            open_associations=count_open_associations(session, study.study_key),
            last_change=study.last_change_at,
            revision_started=study.revision_started_at,
            quiet=self._quiet,
            longest_wait=self._longest_wait,
        )
