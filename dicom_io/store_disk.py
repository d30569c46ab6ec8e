"""The disk below a store: what is free of it, and files that are whole or not there at all."""

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Final

from dicom_io.durable_files import (
    as_storage_error,
    fsync_folder,
    make_durable_folders,
    write_new_file,
)
from dicom_io.errors import OutOfSpace

_ABANDONED_AFTER_SECONDS: Final = 600.0
_PROBE_BYTES: Final = 4096


class StoreDisk:
    """A folder in which several processes may write files at once, each whole or not there.

    Args:
        root: the folder; made if it is missing, for this node alone.
        low_water_mark_bytes: free space on the disk that writing must leave.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, root: Path, low_water_mark_bytes: int = 0) -> None:
        self.root = root.resolve()
        self.low_water_mark_bytes = low_water_mark_bytes
        self._partial = self.folder("partial")
        with as_storage_error("make the folders of the store"):
            if self.root.stat().st_mode & 0o777 != 0o700:
                self.root.chmod(0o700)

    def folder(self, name: str) -> Path:
        """A folder below the root; made if it is missing.

        Raises:
            StorageError: it cannot be made.
        """
        folder = self.root / name
        with as_storage_error("make the folders of the store"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def has_room(self, size: int = 0) -> bool:
        """Whether ``size`` more bytes leave the disk above its low-water mark."""
        return self.free_bytes() - size >= self.low_water_mark_bytes

    def free_bytes(self) -> int:
        """Free space on the disk; -1 if it cannot be asked for."""
        try:
            disk = os.statvfs(self.root)
        except OSError:
            return -1
        return disk.f_bavail * disk.f_frsize

    def problem(self) -> str | None:
        """Why nothing could be kept now; None if it could. Writes and deletes a small file."""
        if not self.has_room():
            return "free disk space is below the low-water mark"
        probe = self._partial / uuid.uuid4().hex
        try:
            try:
                write_new_file(probe, b"", bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as cause:
            return f"the store cannot be written: {os.strerror(cause.errno or 0)}"
        return None

    def write(self, path: Path, header: bytes, content: bytes | memoryview) -> None:
        """Write, fsync, rename, fsync the folder: after a power cut it is whole or not there.

        Args:
            path: below the root; its folders are made, and a file that is there is replaced.
            header: the first bytes of the file.
            content: the others.

        Raises:
            OutOfSpace: the disk is full, read-only, over quota or below its low-water mark.
            StorageError: writing failed for another reason; nothing of the file stays.
        """
        if not self.has_room(len(header) + len(content)):
            raise OutOfSpace(
                "the disk of the store has less free space than its low-water mark of "
                f"{self.low_water_mark_bytes} bytes; free some space"
            )
        part = self._partial / uuid.uuid4().hex
        with as_storage_error(f"write {path.name}"):
            try:
                make_durable_folders(path.parent, self.root)
                write_new_file(part, header, content)
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            fsync_folder(path.parent)

    def remove_abandoned_parts(self) -> int:
        """Delete what a crash left half written; call it at start.

        Returns:
            How many files were removed.

        Raises:
            StorageError: the folder cannot be read or written.
        """
        removed = 0
        with as_storage_error("clear away partial files"):
            for part in self._partial.iterdir():
                # Other processes may be writing right now; theirs are young.
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - part.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
                        part.unlink()
                        removed += 1
        return removed
