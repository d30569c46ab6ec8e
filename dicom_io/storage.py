"""Durable files for DICOM instances: complete, fsync'd and content-addressed, or not there at all.

The name of a file is the SHA-256 of what is in it, so nothing that came over the network reaches a
path, and the same bytes twice are one file. Layout below the root, directories 0700, files 0600::

    instances/ab/cd/<sha256 of the dataset>-<16 digits of the sha256 of the file meta>.dcm
    partial/        files that are being written; what a crash leaves is removed at the next start
    quarantine/     raw bytes of objects that were refused, for whoever looks into it
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.uid import UID

from dicom_io.durable_files import as_storage_error, fsync_folder, holds
from dicom_io.errors import StorageError
from dicom_io.part10 import dataset_offset, encode_dataset, file_header
from dicom_io.quarantine import Quarantine
from dicom_io.store_disk import StoreDisk

_LONGEST_HEADER: Final = 1024
_META_DIGITS: Final = 16


@dataclass(frozen=True)
class StoredInstance:
    """One instance that is on the disk to stay.

    Attributes:
        relative_path: where it lies below the store's root, with forward slashes.
        sha256: hash of the encoded dataset as it was received, without file meta; hexadecimal.
        size: length of the encoded dataset in bytes.
        transfer_syntax_uid: how the dataset is encoded.
        sop_class_uid: what it is, as the sender said.
        sop_instance_uid: which one it is, as the sender said.
    """

    relative_path: str
    sha256: str
    size: int
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str


class InstanceStore:
    """A folder of instances that several processes may read and write at once.

    Args:
        root: the folder; made if it is missing.
        low_water_mark_bytes: free space on the disk that writing must leave.
        quarantine_limit_bytes: what the quarantine may hold.

    Attributes:
        root: the folder, absolute.
        disk: what is free, and how files are written.
        quarantine: where refused objects are put aside.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(
        self,
        root: Path,
        low_water_mark_bytes: int = 0,
        quarantine_limit_bytes: int = 1 << 30,
    ) -> None:
        self.disk = StoreDisk(root, low_water_mark_bytes)
        self.root = self.disk.root
        self.quarantine = Quarantine(self.disk, quarantine_limit_bytes)
        self._instances = self.disk.folder("instances")

    def keep(
        self,
        encoded_dataset: bytes | memoryview,
        *,
        transfer_syntax_uid: str,
        sop_class_uid: str,
        sop_instance_uid: str,
    ) -> StoredInstance:
        """Make a received dataset durable, bit for bit, as a Part 10 file (PS3.10 7.1).

        When this returns, the bytes, the file's name and the names of its folders have been
        fsync'd. The same arguments twice give the same file.

        Args:
            encoded_dataset: the dataset as it came, without file meta information.
            transfer_syntax_uid: transfer syntax of the presentation context it came in.
            sop_class_uid: Affected SOP Class UID of the command.
            sop_instance_uid: Affected SOP Instance UID of the command.

        Returns:
            What was stored, and where.

        Raises:
            OutOfSpace: the disk is full, read-only, over quota or below its low-water mark.
            StorageError: writing failed for another reason; nothing of the file stays.
        """
        try:
            header = file_header(
                transfer_syntax_uid=transfer_syntax_uid,
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
            )
        except ValueError as cause:
            raise StorageError(f"{cause}; the instance was not stored") from cause
        dataset_sha256 = hashlib.sha256(encoded_dataset).hexdigest()
        header_sha256 = hashlib.sha256(header).hexdigest()[:_META_DIGITS]
        path = self._instances.joinpath(
            dataset_sha256[:2], dataset_sha256[2:4], f"{dataset_sha256}-{header_sha256}.dcm"
        )
        if holds(path, header, encoded_dataset):
            # Whoever wrote it may not have come to the last step yet.
            with as_storage_error(f"make {path.name} durable"):
                fsync_folder(path.parent)
        else:
            self.disk.write(path, header, encoded_dataset)
        return StoredInstance(
            relative_path=path.relative_to(self.root).as_posix(),
            sha256=dataset_sha256,
            size=len(encoded_dataset),
            transfer_syntax_uid=transfer_syntax_uid,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
        )

    def keep_dataset(self, dataset: Dataset) -> StoredInstance:
        """Make an object that this node built durable.

        Args:
            dataset: an object with SOP Class and Instance UID and a Transfer Syntax UID in its
                file meta information.

        Returns:
            What was stored, and where.

        Raises:
            OutOfSpace: see ``keep``.
            StorageError: see ``keep``; or the dataset cannot be encoded.
        """
        try:
            transfer_syntax = UID(dataset.file_meta.TransferSyntaxUID)
            encoded = encode_dataset(dataset, transfer_syntax)
            sop_class_uid, sop_instance_uid = dataset.SOPClassUID, dataset.SOPInstanceUID
        except (AttributeError, ValueError) as cause:
            raise StorageError(
                f"an object cannot be encoded ({type(cause).__name__}); it was not stored"
            ) from cause
        return self.keep(
            encoded,
            transfer_syntax_uid=str(transfer_syntax),
            sop_class_uid=str(sop_class_uid),
            sop_instance_uid=str(sop_instance_uid),
        )

    def path_of(self, relative_path: str) -> Path:
        """Where an instance lies on this machine.

        Args:
            relative_path: as in ``StoredInstance``.

        Returns:
            An absolute path below the store's root.

        Raises:
            StorageError: the path would leave the store.
        """
        parts = PurePosixPath(relative_path).parts
        if not parts or ".." in parts or "\0" in relative_path or relative_path.startswith("/"):
            raise StorageError("the path of an instance does not lie inside the store")
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root):
            raise StorageError(f"{relative_path} points out of the store")
        return path

    def read(self, relative_path: str) -> Dataset:
        """Read an instance that was stored before.

        Args:
            relative_path: as in ``StoredInstance``.

        Returns:
            The object with its file meta information.

        Raises:
            StorageError: the file is missing or is not a readable DICOM object.
        """
        path = self.path_of(relative_path)
        try:
            return dcmread(path)
        except Exception as cause:
            raise StorageError(
                f"{relative_path} cannot be read ({type(cause).__name__})"
            ) from cause

    def read_encoded_dataset(self, relative_path: str) -> bytes:
        """The encoded dataset of an instance, as it was received.

        Args:
            relative_path: as in ``StoredInstance``.

        Returns:
            The bytes behind the file meta information.

        Raises:
            StorageError: the file is missing or is not one that this store wrote.
        """
        with as_storage_error(f"read {relative_path}"):
            content = self.path_of(relative_path).read_bytes()
        try:
            return content[dataset_offset(content) :]
        except ValueError as cause:
            raise StorageError(f"{relative_path} is damaged: {cause}") from cause

    def dataset_length(self, relative_path: str) -> int:
        """Bytes of an instance's encoded dataset, without reading it.

        Args:
            relative_path: as in ``StoredInstance``.

        Raises:
            StorageError: the file is missing or is not one that this store wrote.
        """
        with (
            as_storage_error(f"read {relative_path}"),
            self.path_of(relative_path).open("rb") as file,
        ):
            head = file.read(_LONGEST_HEADER)
            size = os.fstat(file.fileno()).st_size
        try:
            return size - dataset_offset(head)
        except ValueError as cause:
            raise StorageError(f"{relative_path} is damaged: {cause}") from cause

    def verify(self, relative_path: str, sha256: str) -> None:
        """Check that an instance is still what was stored.

        Args:
            relative_path: as in ``StoredInstance``, possibly of long ago.
            sha256: the hash of its encoded dataset, as in ``StoredInstance``.

        Raises:
            StorageError: the file is missing, or its bytes have changed.
        """
        found = hashlib.sha256(self.read_encoded_dataset(relative_path)).hexdigest()
        if found != sha256:
            raise StorageError(
                f"{relative_path} has changed: its hash is {found}, not {sha256}; "
                "restore it from the source"
            )

    def relative_paths(self, first_digits: str = "??") -> Iterator[str]:
        """The paths of all instances, in no particular order, to compare with a database.

        Args:
            first_digits: two hexadecimal digits, to get one of 256 parts; the default gets all.
        """
        for path in self._instances.glob(f"{first_digits}/??/*.dcm"):
            yield path.relative_to(self.root).as_posix()

    def lately_kept_paths(self, first_digits: str, since: float) -> Iterator[str]:
        """The paths of instances that were kept since then, in no particular order.

        Folders in which nothing was kept are not listed.

        Args:
            first_digits: two hexadecimal digits, for one of 256 parts.
            since: seconds since the epoch.

        Raises:
            StorageError: the store cannot be read.
        """
        with as_storage_error("look into the store"):
            for folder in self._instances.glob(f"{first_digits}/??"):
                if folder.stat().st_mtime < since:
                    continue
                for path in folder.glob("*.dcm"):
                    with contextlib.suppress(FileNotFoundError):  # just deleted
                        if path.stat().st_mtime >= since:
                            yield path.relative_to(self.root).as_posix()

    def remove(self, relative_path: str) -> None:
        """Delete an instance; one that is not there counts as deleted.

        Args:
            relative_path: as in ``StoredInstance``.

        Raises:
            StorageError: the file cannot be deleted, or does not lie in the store.
        """
        path = self.path_of(relative_path)
        with as_storage_error(f"delete {relative_path}"):
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                fsync_folder(path.parent)
