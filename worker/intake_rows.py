"""The rows of an instance that has come: its own, its series, its study, and the log."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from dicom_io.errors import RejectionReason
from dicom_io.intake import ReceivedInstance
from worker.database import insert_if_absent
from worker.events import EventKind, record
from worker.studies import Step, StudyState, starts_new_revision
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


@dataclass(frozen=True)
class InstanceEntry:
    """One instance on its way into the database."""

    session: Session
    association_key: int
    instance: ReceivedInstance
    now: datetime

    def add_instance(self, study: Study, series_key: int | None) -> Instance:
        """Enter the instance into a study."""
        row = Instance(
            sop_instance_uid=self.instance.sop_instance_uid, **self._columns(study, series_key)
        )
        self.session.add(row)
        self.log(EventKind.INSTANCE_STORED, study.study_key, sha256=self.instance.stored.sha256)
        return row

    def correct(self, nameless: Instance, study: Study, series_key: int | None) -> None:
        """Enter the instance in place of an earlier copy of it that named no study.

        The earlier copy becomes a conflict of it, as do those that were conflicts before; so what
        is erased with the study is all that there is of the instance.

        Args:
            nameless: the earlier copy; nobody else's, as is the row that stands for its study.
            study: the study that the instance names.
            series_key: its series.
        """
        session, sha256 = self.session, self.instance.stored.sha256
        earlier = {
            "instance_key": nameless.instance_key,
            "relative_path": nameless.relative_path,
            "sha256": nameless.sha256,
            "size": nameless.size,
            "received_at": nameless.received_at,
        }
        nowhere = nameless.study_key
        for column, value in self._columns(study, series_key).items():
            setattr(nameless, column, value)
        nameless.rejection = nameless.rejection_detail = None
        session.flush()
        if earlier["sha256"] != sha256:
            insert_if_absent(session, InstanceConflict, **earlier)
        session.execute(
            delete(InstanceConflict).where(
                InstanceConflict.instance_key == nameless.instance_key,
                InstanceConflict.sha256 == sha256,
            )
        )
        take_step(
            session,
            nowhere,
            StudyState.REJECTED,
            StudyState.REMOVED,
            Step.CORRECTED,
            self.now,
            reason="it came again and names its study, where it is now",
            changes={"finished_at": self.now},
        )
        self.log(
            EventKind.INSTANCE_STORED,
            study.study_key,
            sha256=sha256,
            instead_of_sha256=str(earlier["sha256"]),
        )

    def _columns(self, study: Study, series_key: int | None) -> dict[str, object]:
        stored = self.instance.stored
        return {
            "study_key": study.study_key,
            "series_key": series_key,
            "association_key": self.association_key,
            "sop_class_uid": self.instance.sop_class_uid,
            "transfer_syntax_uid": stored.transfer_syntax_uid,
            "relative_path": stored.relative_path,
            "sha256": stored.sha256,
            "size": stored.size,
            "received_at": self.now,
            "revision": study.revision,
        }

    def log(self, kind: EventKind, study_key: int | None = None, **detail: str) -> None:
        """Tell of the instance in the event log."""
        record(
            self.session,
            kind,
            self.now,
            study_key=study_key,
            association_key=self.association_key,
            detail={"sop_instance_uid": self.instance.sop_instance_uid, **detail},
        )


def enter_without_study(entry: InstanceEntry) -> None:
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


def locked_study(session: Session, study_uid: str, now: datetime) -> Study:
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


def lock_study(session: Session, study_key: int) -> Study:
    """A study's row, nobody else's until the transaction ends."""
    return session.execute(
        select(Study).where(Study.study_key == study_key).with_for_update()
    ).scalar_one()


def grow(session: Session, study: Study, now: datetime) -> None:
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


def series_key_of(session: Session, study_key: int, series_uid: str) -> int:
    """Key of a series of a study, made if this is its first instance."""
    find = select(Series.series_key).where(
        Series.study_key == study_key, Series.series_uid == series_uid
    )
    found = session.scalars(find).one_or_none()
    if found is None:
        insert_if_absent(session, Series, study_key=study_key, series_uid=series_uid)
        found = session.scalars(find).one()
    return found


def link(session: Session, association_key: int, study_key: int) -> None:
    """Note that an association brought part of a study."""
    insert_if_absent(
        session, AssociationStudy, association_key=association_key, study_key=study_key
    )


def count_open_associations(session: Session, study_key: int) -> int:
    """How many associations that brought part of a study have not ended."""
    return session.execute(
        select(func.count())
        .select_from(AssociationStudy)
        .join(Association, Association.association_key == AssociationStudy.association_key)
        .where(AssociationStudy.study_key == study_key, Association.ended_at.is_(None))
    ).scalar_one()


def study_of_own_result(session: Session, sop_instance_uid: str) -> int | None:
    """The study for which this node made an object that has come back; None if it did not."""
    return session.scalar(
        select(Result.study_key).where(Result.sop_instance_uid == sop_instance_uid).limit(1)
    )


def is_corrected_by(known: Instance, instance: ReceivedInstance) -> bool:
    """Whether an instance names its study, of which the copy that came first named none."""
    return known.study.study_uid is None and instance.study_uid is not None


def known_instance(session: Session, sop_instance_uid: str) -> Instance | None:
    """The instance of this UID that came first, if any."""
    return session.execute(
        select(Instance).where(Instance.sop_instance_uid == sop_instance_uid)
    ).scalar_one_or_none()
