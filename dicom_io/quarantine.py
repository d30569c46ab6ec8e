"""Raw bytes of objects that were refused, each with its reason, for whoever looks into it."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from dicom_io.durable_files import as_storage_error, fsync_folder
from dicom_io.errors import StorageError
from dicom_io.store_disk import StoreDisk

_MOST_OBJECTS: Final = 10_000


class Quarantine:
    """The folder ``quarantine`` of a store; several processes may use it at once.

    Args:
        disk: of the store.
        limit_bytes: what it may hold; beyond it, or beyond 10,000 objects, nothing more is put in.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, disk: StoreDisk, limit_bytes: int) -> None:
        self._disk = disk
        self._folder = disk.folder("quarantine")
        self._limit_bytes = limit_bytes

    def put(self, content: bytes | memoryview, reason: str) -> str | None:
        """Put aside the raw bytes of an object that was refused, so that there is evidence.

        Args:
            content: what came.
            reason: why it was refused; a few words without patient data.

        Returns:
            The path below the store's root, or None if the quarantine is full or the disk has no
            room.
        """
        digest = hashlib.sha256(content).hexdigest()
        path = self._folder / f"{digest}.bin"
        try:
            sizes = [file.stat().st_size for file in self._folder.iterdir()]
            if sum(sizes) + len(content) > self._limit_bytes:
                return None
            if len(sizes) >= 2 * _MOST_OBJECTS:  # each has its reason beside it
                return None
            self._disk.write(path, b"", content)
            self._disk.write(_reason_beside(path), b"", reason.encode("utf-8", "replace"))
        except (OSError, StorageError):
            return None
        return self._relative(path)

    def relative_paths(self) -> Iterator[str]:
        """The paths of what was put aside, without the reasons, in no particular order."""
        for path in self._folder.glob("*.bin"):
            yield self._relative(path)

    def remove(self, relative_path: str) -> None:
        """Delete an object and its reason; one that is not there counts as deleted.

        Args:
            relative_path: as from ``put``.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._folder / PurePosixPath(relative_path).name
        with as_storage_error(f"delete {path.name}"):
            # The reason first: nothing would lead to one without its object.
            _reason_beside(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            fsync_folder(self._folder)

    def remove_older_than(self, moment: float) -> int:
        """Delete what was put aside before a moment.

        Args:
            moment: seconds since the epoch.

        Returns:
            How many objects were deleted.

        Raises:
            StorageError: the folder cannot be read or written.
        """
        old = []
        with as_storage_error("look into the quarantine"):
            for path in self._folder.glob("*.bin"):
                with contextlib.suppress(FileNotFoundError):  # somebody else has just deleted it
                    if path.stat().st_mtime < moment:
                        old.append(self._relative(path))
        for relative_path in old:
            self.remove(relative_path)
        return len(old)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._disk.root).as_posix()


def _reason_beside(path: Path) -> Path:
    return path.with_suffix(".txt")
