"""A file system of a few megabytes, which a test can fill or make read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system."""

    folder: Path

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self, free_bytes: int) -> None:
        """Leave so many bytes free."""
        self._filler.write_bytes(bytes(_free_bytes(self.folder) - free_bytes))

    def clear(self) -> None:
        """Take away what ``fill`` put there."""
        self._filler.unlink()

    def make_read_only(self, read_only: bool) -> None:
        """Remount it."""
        how = "remount,ro" if read_only else "remount,rw"
        subprocess.run(["mount", "-o", how, str(self.folder)], check=True, timeout=20)


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs; skips the test where that is not allowed."""
    folder.mkdir(parents=True, mode=0o700)
    options = f"size={mebibytes}m,mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False, timeout=20).returncode:
        pytest.skip("file systems can be mounted by root only")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
