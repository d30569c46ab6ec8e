"""One study is erased wherever it is: its own files and rows, and copies of it in odd places.

Odd places are the quarantine, objects that could not be attributed to a study, and objects that
came under the SOP Instance UID of another study's instance.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dicom_io.errors import IllegalTransition, MultiMixError
from dicom_io.storage import InstanceStore
from worker.database import Database
from worker.events import EventKind, record
from worker.intake_rows import lock_study
from worker.removal import delete_noted_files, note_files, remove_study
from worker.studies import Step, StudyState
from worker.tables import UNSETTLED, Delivery, Instance, InstanceConflict, Peer, Study

_FILES_AT_A_TIME: Final = 100
_LITTLE_ENDIAN_TAG: Final = b"\x20\x00\x0d\x00"
_BIG_ENDIAN_TAG: Final = b"\x00\x20\x00\x0d"


@dataclass(frozen=True)
class StrayCopies:
    """Objects of a study that are not entered under it.

    Attributes:
        quarantined: paths below the store.
        conflicts: paths and hashes, by key of the conflict.
        unattributed: keys of the rows that stand for objects without a study.
    """

    quarantined: tuple[str, ...]
    conflicts: dict[int, tuple[str, str]]
    unattributed: tuple[int, ...]


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
    with database.reading() as session:
        study_key = session.scalar(select(Study.study_key).where(Study.study_uid == study_uid))
        if study_key is None:
            raise MultiMixError(f"no study {study_uid} is known; `status` lists all")
        stray = find_stray_copies(session, store, study_uid, study_key)
    with database.writing() as session:
        _erase(session, study_key, stray, operator, now())
    deleted = 0
    while count := delete_noted_files(database, store, now(), _FILES_AT_A_TIME, study_key):
        deleted += count
    for key in stray.unattributed:
        deleted += delete_noted_files(database, store, now(), _FILES_AT_A_TIME, key)
    return deleted


def find_stray_copies(
    session: Session, store: InstanceStore, study_uid: str, study_key: int
) -> StrayCopies:
    """Look into every file that may hold an object of the study and is not entered under it."""
    conflicts = session.execute(
        select(
            InstanceConflict.conflict_key, InstanceConflict.relative_path, InstanceConflict.sha256
        )
        .join(Instance, Instance.instance_key == InstanceConflict.instance_key)
        .where(Instance.study_key != study_key)
    )
    objects = session.execute(
        select(Instance.study_key, Instance.relative_path)
        .join(Study, Study.study_key == Instance.study_key)
        .where(Study.study_uid.is_(None))
    )

    def holds(relative_path: str) -> bool:
        path = store.path_of(relative_path)
        return path.is_file() and names_study(path.read_bytes(), study_uid)

    return StrayCopies(
        quarantined=tuple(path for path in store.quarantined_paths() if holds(path)),
        conflicts={key: (path, sha256) for key, path, sha256 in conflicts if holds(path)},
        unattributed=tuple(sorted({key for key, path in objects if holds(path)})),
    )


def names_study(content: bytes, study_uid: str) -> bool:
    """Whether bytes hold the element Study Instance UID (0020,000D) with this value.

    The bytes need not be a readable dataset. Little and big endian, implicit and explicit VR
    (PS3.5 7.1), also where the whole of it is deflated (PS3.5 A.5); odd values are padded as by
    PS3.5 9.1, or by mistake with a blank or not at all.
    """
    needles = _needles(study_uid)
    if any(needle in content for needle in needles):
        return True
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # The element stands near the beginning; a bomb is not unpacked to its end.
        inflated = inflater.decompress(content, 16 << 20)
    except zlib.error:
        return False
    return any(needle in inflated for needle in needles)


def _needles(study_uid: str) -> list[bytes]:
    value = study_uid.encode("ascii", "replace")
    padded = [value + b"\0", value + b" ", value] if len(value) % 2 else [value]
    needles = []
    for each in padded:
        needles += [
            _LITTLE_ENDIAN_TAG + b"UI" + struct.pack("<H", len(each)) + each,
            _LITTLE_ENDIAN_TAG + struct.pack("<L", len(each)) + each,
            _BIG_ENDIAN_TAG + b"UI" + struct.pack(">H", len(each)) + each,
        ]
    return needles


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
    if stray.quarantined or stray.conflicts:
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
    note_files(session, study_key, files)
    record(
        session,
        EventKind.STUDY_REMOVED,
        now,
        study_key=study_key,
        detail={
            "reason": "copies in quarantine or in conflict with other studies, erased",
            "operator": operator,
            "quarantined": len(stray.quarantined),
            "conflicts": len(stray.conflicts),
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
