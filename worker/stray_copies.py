"""Objects of a study that lie in odd places, found by what their bytes say.

Odd places are the quarantine, objects that could not be attributed to a study, objects that came
under the SOP Instance UID of another study's instance, and files that no row names.
"""

import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pydicom.filereader import read_file_meta_info
from sqlalchemy import select, true
from sqlalchemy.orm import Session

from dicom_io.instance_header import read_identifiers
from dicom_io.part10 import dataset_offset
from dicom_io.storage import InstanceStore
from worker.named_files import SETTLED_AFTER_SECONDS, unnamed_paths
from worker.tables import Instance, InstanceConflict, Study

_LITTLE_ENDIAN_TAG: Final = b"\x20\x00\x0d\x00"
_BIG_ENDIAN_TAG: Final = b"\x00\x20\x00\x0d"


@dataclass(frozen=True)
class StrayCopies:
    """Objects of a study that are not entered under it.

    Attributes:
        quarantined: paths below the store.
        conflicts: paths and hashes, by key of the conflict.
        unattributed: keys of the rows that stand for objects without a study.
        unnamed: paths and hashes of files of the store that no row names.
    """

    quarantined: tuple[str, ...]
    conflicts: dict[int, tuple[str, str]]
    unattributed: tuple[int, ...]
    unnamed: dict[str, str]

    def __bool__(self) -> bool:
        return any((self.quarantined, self.conflicts, self.unattributed, self.unnamed))


def find_stray_copies(
    session: Session, store: InstanceStore, study_uid: str, study_key: int | None
) -> StrayCopies:
    """Look into every file that may hold an object of the study and is not entered under it.

    Args:
        session: a transaction.
        store: where the files lie.
        study_uid: Study Instance UID.
        study_key: of its row; None where it has none.
    """
    conflicts = session.execute(
        select(
            InstanceConflict.conflict_key, InstanceConflict.relative_path, InstanceConflict.sha256
        )
        .join(Instance, Instance.instance_key == InstanceConflict.instance_key)
        .where(Instance.study_key != study_key if study_key is not None else true())
    )
    objects = session.execute(
        select(Instance.study_key, Instance.relative_path)
        .join(Study, Study.study_key == Instance.study_key)
        .where(Study.study_uid.is_(None))
    )

    def holds(relative_path: str) -> bool:
        content = _content(store.path_of(relative_path))
        return content is not None and _holds_study(content, study_uid)

    return StrayCopies(
        quarantined=tuple(path for path in store.quarantine.relative_paths() if holds(path)),
        conflicts={key: (path, sha256) for key, path, sha256 in conflicts if holds(path)},
        unattributed=tuple(sorted({key for key, path in objects if holds(path)})),
        unnamed={
            path: _sha256_in(path)
            for path in unnamed_paths(session, store)
            if _is_unnamed_copy(store.path_of(path), study_uid)
        },
    )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # somebody else has just deleted it
        return None


def _holds_study(content: bytes, study_uid: str) -> bool:
    """Whether a file, or the dataset behind its header, names the study."""
    return names_study(content, study_uid) or names_study(_dataset_of(content), study_uid)


def _dataset_of(content: bytes) -> bytes:
    try:
        return content[dataset_offset(content) :]
    except ValueError:
        return b""


def _is_unnamed_copy(path: Path, study_uid: str) -> bool:
    """Whether a file that no row names is an object of the study.

    One that says so itself may go at any time: whoever is about to enter it does so under the
    study's lock, and has to send it again. One that cannot be parsed, and may be on its way to a
    row of its own, has to be old. What only refers to the study is another study's.
    """
    content = _content(path)
    if content is None or not _holds_study(content, study_uid):
        return False
    own_study_uid = _study_uid_in(path, _dataset_of(content))
    if own_study_uid is not None:
        return own_study_uid == study_uid
    return time.time() - path.stat().st_mtime >= SETTLED_AFTER_SECONDS


def _study_uid_in(path: Path, encoded_dataset: bytes) -> str | None:
    try:
        transfer_syntax_uid = str(read_file_meta_info(path).TransferSyntaxUID)
    except Exception:  # noqa: BLE001 - pydicom raises whatever it likes
        return None
    return read_identifiers(encoded_dataset, transfer_syntax_uid).study_uid


def _sha256_in(relative_path: str) -> str:
    """The hash of a dataset, which is the first part of its file's name."""
    return PurePosixPath(relative_path).name.partition("-")[0]


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
