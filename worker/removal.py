"""A study's files and what was found in it are removed; its row and its place in the log stay.

In this order, so that it can be ended anywhere and is finished later: in one transaction the rows
go and the names of the files are noted; then the files are deleted, one by one, each together with
its note. A study that comes again afterwards is new work.
"""

import getpass
import os
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from dicom_io.errors import StorageError
from dicom_io.storage import InstanceStore
from worker.database import Database, insert_if_absent
from worker.events import EventKind, record
from worker.intake_rows import lock_study
from worker.studies import Step, StudyState
from worker.study_steps import take_step
from worker.tables import (
    AssociationStudy,
    Delivery,
    FileToRemove,
    Inference,
    Instance,
    InstanceConflict,
    Result,
    Series,
    Study,
)


@dataclass(frozen=True)
class _HeldFile:
    relative_path: str
    sha256: str | None
    size: int


def remove_study(
    session: Session,
    study: Study,
    step: Step,
    now: datetime,
    *,
    reason: str,
    operator: str | None = None,
) -> int:
    """Remove all rows of a study but its own, and note its files for deletion.

    Args:
        session: the transaction, in which the study's row is locked.
        study: a study that nobody is at work on.
        step: ``Step.EXPIRED`` or ``Step.ERASED``.
        now: the time.
        reason: what ``status`` says of the study from now on.
        operator: who asked for it, if anybody did.

    Returns:
        Bytes that its files hold.

    Raises:
        IllegalTransition: the study is at work.
    """
    source = study.state
    kinds = {
        "instances": _instance_files(session, study.study_key),
        "conflicts": _conflict_files(session, study.study_key),
        "results": _result_files(session, study.study_key),
    }
    files = [file for group in kinds.values() for file in group]
    _remove_rows(session, study.study_key)
    note_files(session, study.study_key, {file.relative_path: file.sha256 for file in files})
    take_step(
        session,
        study.study_key,
        source,
        StudyState.REMOVED,
        step,
        now,
        reason=reason,
        changes={"finished_at": now, "attempts": 0, "next_attempt_at": None, "woken_at": None},
    )
    held_bytes = sum(file.size for file in files)
    detail = {
        "reason": reason,
        "operator": operator,
        "bytes": held_bytes,
        **{kind: len(group) for kind, group in kinds.items()},
    }
    record(session, EventKind.STUDY_REMOVED, now, study_key=study.study_key, detail=detail)
    return held_bytes


def note_files(session: Session, study_key: int, files: dict[str, str | None]) -> None:
    """Note files for deletion: paths below the store, each with its hash if it has one."""
    for relative_path, sha256 in files.items():
        insert_if_absent(
            session,
            FileToRemove,
            relative_path=relative_path,
            study_key=study_key,
            sha256=sha256,
        )


def delete_noted_files(
    database: Database,
    store: InstanceStore,
    now: datetime,
    most: int,
    study_key: int | None = None,
) -> int:
    """Delete files of removed studies; may be called by several at once, and again after a crash.

    Args:
        database: where the files are noted.
        store: where they lie.
        now: the time.
        most: files in this call, each in a transaction of its own.
        study_key: only files of this study.

    Returns:
        How many notes were settled; ``most`` means that more may be left.

    Raises:
        StorageError: a file cannot be deleted; it stays noted, the others are deleted.
    """
    noted = select(FileToRemove.relative_path, FileToRemove.study_key).limit(most)
    if study_key is not None:
        noted = noted.where(FileToRemove.study_key == study_key)
    with database.reading() as session:
        files = session.execute(noted).all()
    failure: StorageError | None = None
    for relative_path, key in files:
        try:
            with database.writing() as session:
                _delete_file(session, store, relative_path, key, now)
        except StorageError as cause:
            failure = cause
    if failure is not None:
        raise failure
    return len(files)


def operator_name() -> str:
    """Who runs this program, for the log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user no. {os.getuid()}"


def _delete_file(
    session: Session, store: InstanceStore, relative_path: str, study_key: int, now: datetime
) -> None:
    # Under this lock nobody enters an instance of the study, and whoever enters one afterwards
    # looks whether its file is still there.
    lock_study(session, study_key)
    note = session.get(FileToRemove, relative_path)
    if note is None:
        return
    if not _is_held_again(session, note):
        if note.sha256 is None:
            store.quarantine.remove(relative_path)
        else:
            store.remove(relative_path)
    session.delete(note)
    session.flush()
    left = session.scalar(
        select(FileToRemove.relative_path).where(FileToRemove.study_key == study_key).limit(1)
    )
    if left is None:
        record(session, EventKind.FILES_REMOVED, now, study_key=study_key)


def _is_held_again(session: Session, note: FileToRemove) -> bool:
    """Whether the same bytes have come again since the file was noted."""
    if note.sha256 is None:
        return False
    path = note.relative_path
    holders = (
        exists().where(Instance.sha256 == note.sha256, Instance.relative_path == path),
        exists().where(Result.study_key == note.study_key, Result.relative_path == path),
        # Of whatever study: what names this one may have come under another's instance.
        exists().where(InstanceConflict.relative_path == path),
    )
    return any(session.scalar(select(holder)) for holder in holders)


def _instance_files(session: Session, study_key: int) -> list[_HeldFile]:
    rows = session.execute(
        select(Instance.relative_path, Instance.sha256, Instance.size).where(
            Instance.study_key == study_key
        )
    )
    return [_HeldFile(path, sha256, size) for path, sha256, size in rows]


def _conflict_files(session: Session, study_key: int) -> list[_HeldFile]:
    rows = session.execute(
        select(InstanceConflict.relative_path, InstanceConflict.sha256, InstanceConflict.size)
        .join(Instance, Instance.instance_key == InstanceConflict.instance_key)
        .where(Instance.study_key == study_key)
    )
    return [_HeldFile(path, sha256, size or 0) for path, sha256, size in rows]


def _result_files(session: Session, study_key: int) -> list[_HeldFile]:
    rows = session.execute(
        select(Result.relative_path, Result.sha256, Result.size).where(
            Result.study_key == study_key
        )
    )
    return [_HeldFile(path, sha256, size or 0) for path, sha256, size in rows]


def _remove_rows(session: Session, study_key: int) -> None:
    """Delete what refers to the study, in the order in which rows refer to each other."""
    instances = select(Instance.instance_key).where(Instance.study_key == study_key)
    for statement in (
        delete(Delivery).where(Delivery.study_key == study_key),
        delete(Result).where(Result.study_key == study_key),
        delete(Inference).where(Inference.instance_key.in_(instances)),
        delete(InstanceConflict).where(InstanceConflict.instance_key.in_(instances)),
        delete(Instance).where(Instance.study_key == study_key),
        delete(Series).where(Series.study_key == study_key),
        delete(AssociationStudy).where(AssociationStudy.study_key == study_key),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
