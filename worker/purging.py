"""One study is erased wherever it is: its own files and rows, and copies of it in odd places."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dicom_io.errors import IllegalTransition, MultiMixError
from dicom_io.storage import InstanceStore
from worker.database import Database
from worker.events import EventKind, record
from worker.intake_rows import lock_study, locked_study
from worker.removal import delete_noted_files, note_files, remove_study
from worker.stray_copies import StrayCopies, find_stray_copies
from worker.studies import Step, StudyState
from worker.tables import UNSETTLED, Delivery, InstanceConflict, Peer, Study

_FILES_AT_A_TIME: Final = 100


def purge_study(
    database: Database,
    store: InstanceStore,
    study_uid: str,
    operator: str,
    now: Callable[[], datetime],
) -> int:
    """Erase a study; when this returns, no file of it is left.

    Args:
        database: what is known of it.
        store: where its files lie.
        study_uid: Study Instance UID.
        operator: who asked for it; stands in the log.
        now: the clock.

    Returns:
        How many files were deleted.

    Raises:
        MultiMixError: no such study was ever received.
        IllegalTransition: it is being read or sent at this moment; try again.
        StorageError: a file cannot be deleted; the sweeper goes on trying.
    """
    store.disk.remove_abandoned_parts()
    with database.reading() as session:
        study_key = session.scalar(select(Study.study_key).where(Study.study_uid == study_uid))
        stray = find_stray_copies(session, store, study_uid, study_key)
    if study_key is None and not stray:
        raise MultiMixError(f"no study {study_uid} is known; `status` lists all")
    with database.writing() as session:
        if study_key is None:  # the row tells that it was erased, and whose files they were
            study_key = locked_study(session, study_uid, now()).study_key
        _erase(session, study_key, stray, operator, now())
    deleted = 0
    while count := delete_noted_files(database, store, now(), _FILES_AT_A_TIME, study_key):
        deleted += count
    for key in stray.unattributed:
        deleted += delete_noted_files(database, store, now(), _FILES_AT_A_TIME, key)
    return deleted


def _erase(
    session: Session, study_key: int, stray: StrayCopies, operator: str, now: datetime
) -> None:
    # Targets first and then studies by their keys, as those do who send.
    sending = _targets_being_called(session, study_key, now)
    for key in stray.unattributed:
        _remove(session, lock_study(session, key), operator, now)
    study = lock_study(session, study_key)
    if sending:  # in whatever state: a study may grow while its results are on the wire
        raise IllegalTransition(f"study {study.study_uid} is being sent; try again in a moment")
    if study.state is StudyState.RUNNING:
        raise IllegalTransition(f"study {study.study_uid} is being read; try again in a moment")
    if study.state is not StudyState.REMOVED:
        _remove(session, study, operator, now)
    if stray.quarantined or stray.conflicts or stray.unnamed:
        _remove_stray_files(session, study_key, stray, operator, now)


def _remove(session: Session, study: Study, operator: str, now: datetime) -> None:
    if study.state is not StudyState.REMOVED:
        remove_study(
            session, study, Step.ERASED, now, reason="erased by an operator", operator=operator
        )


def _remove_stray_files(
    session: Session, study_key: int, stray: StrayCopies, operator: str, now: datetime
) -> None:
    session.execute(
        delete(InstanceConflict).where(InstanceConflict.conflict_key.in_(stray.conflicts))
    )
    files: dict[str, str | None] = dict(stray.conflicts.values())
    files |= dict.fromkeys(stray.quarantined)
    files |= stray.unnamed
    note_files(session, study_key, files)
    record(
        session,
        EventKind.STUDY_REMOVED,
        now,
        study_key=study_key,
        detail={
            "reason": "copies in quarantine, in conflict with other studies or unnamed, erased",
            "operator": operator,
            "quarantined": len(stray.quarantined),
            "conflicts": len(stray.conflicts),
            "unnamed": len(stray.unnamed),
        },
    )


def _targets_being_called(session: Session, study_key: int, now: datetime) -> list[str]:
    """Targets that wait for results of the study and that a sender is calling; none starts now."""
    waiting = select(Delivery.peer_key).where(
        Delivery.study_key == study_key, Delivery.state.in_(UNSETTLED)
    )
    peers = session.scalars(
        select(Peer).where(Peer.peer_key.in_(waiting)).order_by(Peer.peer_key).with_for_update()
    ).all()
    return [
        peer.name
        for peer in peers
        if peer.lease_token is not None
        and peer.lease_expires_at is not None
        and peer.lease_expires_at > now
    ]
