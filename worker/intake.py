"""What came is entered into the database before its sender is told success.

One transaction for each instance: its row, its study's state and the log, or nothing of it.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicom_io.access_control import AssociationFacts, Refusal
from dicom_io.errors import RejectionReason
from dicom_io.intake import ReceivedInstance
from worker.database import Database, insert_if_absent
from worker.events import EventKind, record
from worker.refusal_log import RefusalLog
from worker.studies import Step, StudyState, due_at, starts_new_revision
from worker.study_steps import take_step
from worker.tables import (
    Association,
    AssociationStudy,
    Inference,
    InferenceState,
    Instance,
    InstanceConflict,
    Result,
    Series,
    Study,
)


def utc_now() -> datetime:
    """The time, aware of being UTC."""
    return datetime.now(UTC)


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
    """

    def __init__(
        self,
        database: Database,
        listener: str,
        quiet: timedelta,
        longest_wait: timedelta,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._listener = listener
        self._quiet = quiet
        self._longest_wait = longest_wait
        self._now = now
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
            entry = _Entry(session, association_key, instance, now)
            if _is_own_result(session, instance.sop_instance_uid):
                entry.log(EventKind.OWN_RESULT_IGNORED)
            elif (known := _known_instance(session, instance.sop_instance_uid)) is not None:
                self._enter_again(entry, known)
            elif instance.study_uid is None:
                _enter_without_study(entry)
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

    def _enter(self, entry: "_Entry", study_uid: str) -> None:
        session, now, instance = entry.session, entry.now, entry.instance
        study = _locked_study(session, study_uid, now)
        known = _known_instance(session, instance.sop_instance_uid)
        if known is not None:  # another association brought it while this one waited for the study
            self._enter_again(entry, known)
            return
        if study.state is not StudyState.RECEIVED:
            _grow(session, study, now)
        series_key = None
        if instance.series_uid is not None:
            series_key = _series_key(session, study.study_key, instance.series_uid)
        entry.add_instance(study, series_key)
        _link(session, entry.association_key, study.study_key)
        self._postpone(session, study, now)

    def _enter_again(self, entry: "_Entry", known: Instance) -> None:
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
                received_at=entry.now,
            )
            entry.log(
                EventKind.INSTANCE_CONFLICT,
                known.study_key,
                kept_sha256=known.sha256,
                other_sha256=stored.sha256,
            )
        study = _lock(entry.session, known.study_key)
        if study.state is StudyState.RECEIVED:
            # It grows no further by this, but its sender is not done with it.
            _link(entry.session, entry.association_key, study.study_key)
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
                study = _lock(session, study_key)
                if study.state is StudyState.RECEIVED:
                    self._postpone(session, study, ended.at)

    def _postpone(self, session: Session, study: Study, changed: datetime) -> None:
        """Set anew when the study becomes ready."""
        session.flush()
        study.last_change_at = max(study.last_change_at, changed)
        study.ready_at = due_at(
            open_associations=_open_associations(session, study.study_key),
            last_change=study.last_change_at,
            revision_started=study.revision_started_at,
            quiet=self._quiet,
            longest_wait=self._longest_wait,
        )


@dataclass(frozen=True)
class _Entry:
    """One instance on its way into the database."""

    session: Session
    association_key: int
    instance: ReceivedInstance
    now: datetime

    def add_instance(self, study: Study, series_key: int | None) -> Instance:
        stored = self.instance.stored
        row = Instance(
            study_key=study.study_key,
            series_key=series_key,
            association_key=self.association_key,
            sop_instance_uid=self.instance.sop_instance_uid,
            sop_class_uid=self.instance.sop_class_uid,
            transfer_syntax_uid=stored.transfer_syntax_uid,
            relative_path=stored.relative_path,
            sha256=stored.sha256,
            size=stored.size,
            received_at=self.now,
            revision=study.revision,
        )
        self.session.add(row)
        self.log(EventKind.INSTANCE_STORED, study.study_key, sha256=stored.sha256)
        return row

    def log(self, kind: EventKind, study_key: int | None = None, **detail: str) -> None:
        record(
            self.session,
            kind,
            self.now,
            study_key=study_key,
            association_key=self.association_key,
            detail={"sop_instance_uid": self.instance.sop_instance_uid, **detail},
        )


def _enter_without_study(entry: _Entry) -> None:
    """An object that names no study gets a row of its own, which says what is wrong with it."""
    session, now = entry.session, entry.now
    study = Study(
        study_uid=None,
        state=StudyState.RECEIVED,
        revision=1,
        received_at=now,
        revision_started_at=now,
        last_change_at=now,
        ready_at=now,
    )
    session.add(study)
    session.flush()
    problem = entry.instance.problem or ""
    parsed = not problem.startswith("the dataset cannot be parsed")
    rejection = RejectionReason.NO_UID if parsed else RejectionReason.UNREADABLE
    row = entry.add_instance(study, None)
    row.rejection, row.rejection_detail = rejection.name, problem or None
    take_step(
        session,
        study.study_key,
        StudyState.RECEIVED,
        StudyState.REJECTED,
        Step.UNREADABLE,
        now,
        reason=f"{rejection.value} ({problem})" if problem else rejection.value,
    )


def _locked_study(session: Session, study_uid: str, now: datetime) -> Study:
    """The study's row, made if this is its first instance, and nobody else's until the end."""
    locked = select(Study).where(Study.study_uid == study_uid).with_for_update()
    study = session.scalars(locked).one_or_none()
    if study is not None:
        return study
    insert_if_absent(
        session,
        Study,
        study_uid=study_uid,
        state=StudyState.RECEIVED,
        revision=1,
        received_at=now,
        revision_started_at=now,
        last_change_at=now,
        ready_at=now,
        attempts=0,
    )
    return session.scalars(locked).one()


def _lock(session: Session, study_key: int) -> Study:
    return session.execute(
        select(Study).where(Study.study_key == study_key).with_for_update()
    ).scalar_one()


def _grow(session: Session, study: Study, now: datetime) -> None:
    """Bring a study back to ``received``; what a worker does with it now is void."""
    changes: dict[str, object] = {"attempts": 0, "next_attempt_at": None, "woken_at": None}
    if starts_new_revision(study.state):
        changes |= {"revision": study.revision + 1, "revision_started_at": now}
    take_step(
        session,
        study.study_key,
        study.state,
        StudyState.RECEIVED,
        Step.GREW,
        now,
        changes=changes,
    )
    session.refresh(study)
    # Attempts that end because the study grows say nothing against its films.
    grown = select(Instance.instance_key).where(Instance.study_key == study.study_key)
    session.execute(
        update(Inference)
        .where(Inference.state == InferenceState.STARTED, Inference.instance_key.in_(grown))
        .values(attempts=0)
    )


def _series_key(session: Session, study_key: int, series_uid: str) -> int:
    find = select(Series.series_key).where(
        Series.study_key == study_key, Series.series_uid == series_uid
    )
    found = session.scalars(find).one_or_none()
    if found is None:
        insert_if_absent(session, Series, study_key=study_key, series_uid=series_uid)
        found = session.scalars(find).one()
    return found


def _link(session: Session, association_key: int, study_key: int) -> None:
    insert_if_absent(
        session, AssociationStudy, association_key=association_key, study_key=study_key
    )


def _open_associations(session: Session, study_key: int) -> int:
    return session.execute(
        select(func.count())
        .select_from(AssociationStudy)
        .join(Association, Association.association_key == AssociationStudy.association_key)
        .where(AssociationStudy.study_key == study_key, Association.ended_at.is_(None))
    ).scalar_one()


def _is_own_result(session: Session, sop_instance_uid: str) -> bool:
    return (
        session.execute(
            select(Result.result_key).where(Result.sop_instance_uid == sop_instance_uid)
        ).first()
        is not None
    )


def _known_instance(session: Session, sop_instance_uid: str) -> Instance | None:
    return session.execute(
        select(Instance).where(Instance.sop_instance_uid == sop_instance_uid)
    ).scalar_one_or_none()
