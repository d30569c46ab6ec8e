"""Files that were kept and that no row came to name: they go at once, but never one that is named.

A file is deleted under the lock of its study, and whoever enters one looks under the same lock
whether it is still there. So what is entered stays, and what is deleted is not entered.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicom_io.errors import StorageError
from dicom_io.storage import InstanceStore, StoredInstance
from worker.database import Database
from worker.intake_rows import lock_study
from worker.named_files import is_named

_LOG = logging.getLogger(__name__)


@contextmanager
def entered_or_deleted(
    database: Database, store: InstanceStore, study_key: int, kept: list[StoredInstance]
) -> Iterator[None]:
    """Delete files again if the block ends by an error before rows name them.

    Args:
        database: where rows may name them all the same; another worker made the same files.
        store: where they lie.
        study_key: whose files they are.
        kept: the files; may grow in the block.
    """
    try:
        yield
    except BaseException:
        try:
            with database.writing() as session:
                lock_study(session, study_key)
                delete_unnamed(session, store, kept)
        except (SQLAlchemyError, StorageError) as cause:
            _LOG.warning(
                "study %d: files without a row stay until store and database are compared (%s)",
                study_key,
                type(cause).__name__,
            )
        raise


def delete_unnamed(session: Session, store: InstanceStore, files: Iterable[StoredInstance]) -> None:
    """Delete the files that no row names.

    Args:
        session: the transaction, in which the row of their study is locked.
        store: where they lie.
        files: of one study.

    Raises:
        StorageError: a file cannot be deleted.
    """
    for file in files:
        if not is_named(session, file):
            store.remove(file.relative_path)


def require_files(store: InstanceStore, files: Iterable[StoredInstance]) -> None:
    """Refuse to enter files that have been deleted since they were kept; call it under the lock.

    Raises:
        StorageError: a file is gone.
    """
    for file in files:
        if not store.path_of(file.relative_path).is_file():
            raise StorageError(
                f"{file.relative_path} was deleted before it was entered; it has to be made again"
            )
