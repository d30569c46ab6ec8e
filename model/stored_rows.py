"""Rows of uint8 images in one file, read when they are asked for and not kept.

A memory map would do the same job, but every page that a run has touched counts as its memory
until the system takes it back: a pass over 100,000 films would show 6 GB. Here a row costs one
read, from the system's file cache where it is warm, and a table is a choice of rows, in any order
and without a copy.
"""

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_io.errors import TrainingError
from model.private_file import private

Rows = NDArray[np.uint8]
NO_ROW = -1
"""In a choice of rows: an image that stands in no file, all zero."""


@dataclass(frozen=True)
class _OpenFile:
    """A file of rows, one after the other.

    Attributes:
        path: of the file, for messages.
        descriptor: open for reading.
    """

    path: Path
    descriptor: int


class StoredRows:
    """Chosen rows of a file as one array, (rows, height, width); safe to share by fork."""

    def __init__(
        self, file: _OpenFile, numbers: NDArray[np.int64], row_shape: tuple[int, int]
    ) -> None:
        self._file = file
        self._numbers = numbers
        self._row_shape = row_shape

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, height, width."""
        return (len(self), *self._row_shape)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(
        self, which: int | np.integer | slice | Sequence[int] | NDArray[np.int64]
    ) -> Rows:
        """One row, (height, width), or several, (rows, height, width), read anew.

        Raises:
            IndexError: there is no such row.
            TrainingError: the file has become shorter than its table.
        """
        if isinstance(which, slice):
            return self._read(range(*which.indices(len(self))))
        if isinstance(which, int | np.integer):
            image_hw: Rows = self._read([int(which)])[0]
            return image_hw
        places = np.asarray(which)
        if places.ndim != 1 or (places.size and places.dtype.kind not in "iu"):
            raise IndexError("stored rows are chosen by a number, a slice or a list of numbers")
        return self._read(places.tolist())

    def _read(self, places: Sequence[int]) -> Rows:
        found = np.zeros((len(places), *self._row_shape), dtype=np.uint8)
        for row_hw, place in zip(found, places, strict=True):
            if not -len(self) <= place < len(self):
                raise IndexError(f"row {place} of {len(self)}")
            number = int(self._numbers[place])
            if number != NO_ROW:
                self._read_into(row_hw, number)
        return found

    def _read_into(self, out_hw: Rows, number: int) -> None:
        offset = number * out_hw.nbytes
        if os.preadv(self._file.descriptor, [out_hw.data], offset) != out_hw.nbytes:
            raise TrainingError(f"{self._file.path} is shorter than its table; remove its folder")


def open_rows(path: Path, row_shape: tuple[int, int], numbers: Sequence[int]) -> StoredRows:
    """Choose rows of a file.

    Args:
        path: written by ``RowsWriter``.
        row_shape: height, width.
        numbers: of the rows in the file, from 0, ``NO_ROW`` for a row of zeros.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has no such row.
    """
    chosen = np.asarray(numbers, dtype=np.int64)
    rows = path.stat().st_size // (row_shape[0] * row_shape[1])
    if chosen.size and not NO_ROW <= chosen.min() <= chosen.max() < rows:
        raise ValueError(f"{path} holds {rows} rows, not all that were asked for")
    file = _OpenFile(path, os.open(path, os.O_RDONLY))
    weakref.finalize(file, os.close, file.descriptor)
    return StoredRows(file, chosen, row_shape)


class RowsWriter:
    """Appends uint8 images to a file of rows."""

    def __init__(self, path: Path, row_shape: tuple[int, int]) -> None:
        """Open the file, or begin it; half a row at its end is cut off.

        Raises:
            OSError: the file cannot be written.
        """
        self._row_shape = row_shape
        self._file = open(path, "ab", opener=private)  # noqa: SIM115 - until close
        self.rows = self._file.tell() // (row_shape[0] * row_shape[1])
        self._file.truncate(self.rows * row_shape[0] * row_shape[1])

    def append(self, image_hw: Rows) -> int:
        """Write one image, (height, width), after the others.

        Returns:
            Its number.
        """
        if image_hw.shape != self._row_shape or image_hw.dtype != np.uint8:
            raise ValueError(f"{image_hw.dtype} {image_hw.shape} is no row of {self._row_shape}")
        self._file.write(np.ascontiguousarray(image_hw).data)
        self.rows += 1
        return self.rows - 1

    def sync(self) -> None:
        """Return when everything written is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
