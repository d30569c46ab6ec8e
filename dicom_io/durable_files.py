"""Files and folders that a power cut leaves whole, or not there at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from dicom_io.errors import OutOfSpace, StorageError

_OUT_OF_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


@contextlib.contextmanager
def as_storage_error(action: str) -> Iterator[None]:
    """Turn what the operating system says into the project's own errors.

    Raises:
        OutOfSpace: the disk is full, read-only or over quota.
        StorageError: anything else went wrong.
    """
    try:
        yield
    except OSError as cause:
        kind = OutOfSpace if cause.errno in _OUT_OF_SPACE else StorageError
        raise kind(f"cannot {action}: {os.strerror(cause.errno or 0)}") from cause


def holds(path: Path, header: bytes, content: bytes | memoryview) -> bool:
    """Whether a file already holds exactly this; a damaged one does not, and is replaced."""
    try:
        if path.stat().st_size != len(header) + len(content):
            return False
        with path.open("rb") as file:
            return file.read(len(header)) == header and file.read() == content
    except OSError:
        return False


def make_durable_folders(folder: Path, root: Path) -> None:
    """Make a folder and those above it up to the root, each name fsync'd in its parent."""
    if folder.is_dir():
        return
    if folder != root:
        make_durable_folders(folder.parent, root)
    folder.mkdir(mode=0o700, exist_ok=True)
    fsync_folder(folder.parent)


def write_new_file(path: Path, header: bytes, content: bytes | memoryview) -> None:
    """Write a file of mode 0600 that is not there yet, and fsync it; its name is not durable yet.

    Raises:
        OSError: it is there already, or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        _write_all(file, header)
        _write_all(file, content)
        os.fsync(file.fileno())


def _write_all(file: FileIO, content: bytes | memoryview) -> None:
    """An unbuffered write may take a part only; go on until all of it is taken."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
