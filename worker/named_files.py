"""Which files of the store a row names, and which none does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.storage import InstanceStore, StoredInstance
from worker.tables import FileToRemove, Instance, InstanceConflict, Result

# A younger file may be about to get its row from a process that is at work.
SETTLED_AFTER_SECONDS: Final = 600.0
FOLDERS: Final = tuple(f"{number:02x}" for number in range(256))
_TABLES: Final = (Instance, Result, InstanceConflict, FileToRemove)
_PATHS_AT_A_TIME: Final = 500


@dataclass(frozen=True)
class NamedFile:
    """What a row says of a file; the length is None where the row does not know it."""

    size: int | None = None
    study_key: int | None = None
    must_be_there: bool = True


def named_files(session: Session, beginning: str) -> Iterator[tuple[str, NamedFile]]:
    """Every path of the database that begins like this, with what is known of its file."""
    instances = select(Instance.relative_path, Instance.size, Instance.study_key)
    for path, size, study_key in session.execute(
        instances.where(Instance.relative_path.startswith(beginning, autoescape=True))
    ):
        yield path, NamedFile(size, study_key)
    results = select(Result.relative_path, Result.study_key)
    for path, study_key in session.execute(
        results.where(Result.relative_path.startswith(beginning, autoescape=True))
    ):
        yield path, NamedFile(None, study_key)
    conflicts = select(InstanceConflict.relative_path)
    for path in session.scalars(
        conflicts.where(InstanceConflict.relative_path.startswith(beginning, autoescape=True))
    ):
        yield path, NamedFile()
    to_remove = select(FileToRemove.relative_path)
    for path in session.scalars(
        to_remove.where(FileToRemove.relative_path.startswith(beginning, autoescape=True))
    ):
        yield path, NamedFile(must_be_there=False)


def unnamed_paths(session: Session, store: InstanceStore) -> Iterator[str]:
    """Files of the store that no row names, or that got their row just now.

    One of 256 folders at a time, so that memory is bounded.
    """
    for folder in FOLDERS:
        present = sorted(store.relative_paths(folder))
        named = named_among(session, present)
        yield from (path for path in present if path not in named)


def named_among(session: Session, paths: Sequence[str]) -> set[str]:
    """Those of some paths that a row names."""
    named: set[str] = set()
    for first in range(0, len(paths), _PATHS_AT_A_TIME):
        some = paths[first : first + _PATHS_AT_A_TIME]
        for column in (table.relative_path for table in _TABLES):
            named.update(session.scalars(select(column).where(column.in_(some))))
    return named


def is_named(session: Session, file: StoredInstance) -> bool:
    """Whether a row names a file, also one that notes it for deletion."""
    return bool(named_among(session, [file.relative_path]))
