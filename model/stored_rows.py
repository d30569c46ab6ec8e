"""Rows of uint8 images in ``.npy`` files, read when they are asked for and not kept.

A memory map would do the same job, but every page that a run has touched counts as its memory
until the system takes it back: a pass over 100,000 films would show 6 GB. Here a row costs one
read, from the system's file cache where it is warm, and several files join into one table without
a copy.
"""

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dicom_io.errors import TrainingError

Rows = NDArray[np.uint8]


@dataclass(frozen=True)
class _StoredFile:
    """One open ``.npy`` file.

    Attributes:
        path: of the file, for messages.
        descriptor: open for reading.
        offset: where the first row begins, in bytes.
        rows: how many of its rows belong to the table.
    """

    path: Path
    descriptor: int
    offset: int
    rows: int


class StoredRows:
    """Rows of one or several files as one array, (rows, height, width); safe to share by fork."""

    def __init__(self, files: Sequence[_StoredFile], row_shape: tuple[int, int]) -> None:
        self._files = tuple(files)
        self._ends = np.cumsum([file.rows for file in files])
        self._row_shape = row_shape

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, height, width."""
        return (len(self), *self._row_shape)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(
        self, which: int | np.integer | slice | Sequence[int] | NDArray[np.int64]
    ) -> Rows:
        """One row, (height, width), or several, (rows, height, width), read anew.

        Raises:
            IndexError: there is no such row.
            TrainingError: a file has become shorter than its table.
        """
        if isinstance(which, slice):
            return self._read(range(*which.indices(len(self))))
        if isinstance(which, int | np.integer):
            image_hw: Rows = self._read([int(which)])[0]
            return image_hw
        numbers = np.asarray(which)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise IndexError("stored rows are chosen by a number, a slice or a list of numbers")
        return self._read(numbers.tolist())

    def _read(self, rows: Sequence[int]) -> Rows:
        found = np.empty((len(rows), *self._row_shape), dtype=np.uint8)
        for place, row in enumerate(rows):
            self._read_into(found[place], row)
        return found

    def _read_into(self, out_hw: Rows, row: int) -> None:
        total = len(self)
        number = row + total if row < 0 else row
        if not 0 <= number < total:
            raise IndexError(f"row {row} of {total}")
        which = int(np.searchsorted(self._ends, number, side="right"))
        file = self._files[which]
        number -= int(self._ends[which]) - file.rows
        offset = file.offset + number * out_hw.nbytes
        if os.preadv(file.descriptor, [out_hw.data], offset) != out_hw.nbytes:
            raise TrainingError(f"{file.path} is shorter than its table; remove its folder")


def open_rows(path: Path, rows: int) -> StoredRows:
    """Open the first rows of a ``.npy`` file of uint8 images.

    Args:
        path: written by ``write_rows`` or ``numpy.save``.
        rows: how many rows the table has; the file may hold more.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no ``.npy`` file of uint8 images, or holds fewer rows.
    """
    with path.open("rb") as file:
        if npy.read_magic(file) != (1, 0):
            raise ValueError(f"{path} has another .npy version than 1.0")
        shape, is_column_major, dtype = npy.read_array_header_1_0(file)
        offset = file.tell()
        size = os.fstat(file.fileno()).st_size
    if len(shape) != 3 or is_column_major or dtype != np.uint8:
        raise ValueError(f"{path} holds no uint8 images")
    if shape[0] < rows or size < offset + rows * shape[1] * shape[2]:
        raise ValueError(f"{path} holds fewer than {rows} rows")
    descriptor = os.open(path, os.O_RDONLY)
    stored = StoredRows([_StoredFile(path, descriptor, offset, rows)], (shape[1], shape[2]))
    # The file, not the table, owns the descriptor: joined tables share it.
    weakref.finalize(stored._files[0], os.close, descriptor)
    return stored


def join_rows(parts: Iterable[StoredRows]) -> StoredRows:
    """Several tables of the same height and width as one, in order, without reading any."""
    tables = list(parts)
    row_shapes = {table._row_shape for table in tables}
    if len(row_shapes) != 1:
        raise ValueError(f"tables of different shapes cannot be joined: {sorted(row_shapes)}")
    return StoredRows([file for table in tables for file in table._files], row_shapes.pop())


class RowsWriter:
    """An unfinished ``.npy`` file of uint8 images; rows that are never written are zero."""

    def __init__(self, file: BinaryIO, shape: tuple[int, int, int]) -> None:
        self._file = file
        self._shape = shape
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        self._offset = file.tell()
        file.truncate(self._offset + int(np.prod(shape)))

    def write(self, row: int, image_hw: Rows) -> None:
        """Write one row, (height, width)."""
        if image_hw.shape != self._shape[1:] or not 0 <= row < self._shape[0]:
            raise ValueError(f"row {row} of shape {image_hw.shape} does not fit {self._shape}")
        self._file.seek(self._offset + row * image_hw.nbytes)
        self._file.write(np.ascontiguousarray(image_hw, dtype=np.uint8).data)


@contextmanager
def write_rows(path: Path, shape: tuple[int, int, int]) -> Iterator[RowsWriter]:
    """Write a ``.npy`` file row by row; on disk when the block ends."""
    with path.open("wb") as file:
        yield RowsWriter(file, shape)
        file.flush()
        os.fsync(file.fileno())
