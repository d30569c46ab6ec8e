"""Preprocessed images on disk, each found by the content of the files that it was made from.

::

    NAME.rows    the images, one after the other (``model.stored_rows``)
    NAME.jsonl   what each content became: a row of that file, or the reason why none

An image is looked up by what it was made from, wherever that lies now and whatever its date, so a
moved or copied export is not decoded again. A line is written after its row is on disk: a process
that is killed loses the images since the last ``sync``, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from model.json_lines import LinesWriter, read_lines, replace_lines
from model.stored_rows import RowsWriter, StoredRows, open_rows


@dataclass(frozen=True, slots=True)
class Kept:
    """What the content of a file became.

    Attributes:
        content: hash of the content.
        row: number of the image, or None where none could be made.
        problem: why none could be made; free of patient data.
    """

    content: str
    row: int | None
    problem: str


_KEPT = TypeAdapter(Kept)


class RowStore:
    """Images by content. One process writes at a time; whoever writes holds the folder's lock."""

    def __init__(self, folder: Path, name: str, row_shape: tuple[int, int]) -> None:
        """Open a store, or begin it; lines without their row are forgotten.

        Args:
            folder: of the store; it exists.
            name: of its files.
            row_shape: height, width of every image.

        Raises:
            OSError: the store cannot be read or written.
        """
        self._path = folder / f"{name}.rows"
        self._row_shape = row_shape
        self._rows = RowsWriter(self._path, row_shape)
        lines = folder / f"{name}.jsonl"
        self._kept: dict[str, Kept] = {}
        is_any_lost = False
        for kept in read_lines(lines, _KEPT):
            if kept.row is None or 0 <= kept.row < self._rows.rows:
                self._kept[kept.content] = kept
            else:
                is_any_lost = True
        if is_any_lost:
            # Their numbers will be those of other rows; left there, the lines would speak of these.
            replace_lines(lines, map(_KEPT.dump_json, self._kept.values()))
        self._lines = LinesWriter(lines)
        self._waiting: list[Kept] = []

    def find(self, content: str) -> Kept | None:
        """What a content became, or None where it is not known yet."""
        return self._kept.get(content)

    def keep(self, content: str, image_hw: NDArray[np.uint8] | None, problem: str = "") -> Kept:
        """Store what a content became.

        Args:
            content: hash of the content.
            image_hw: uint8, of the store's shape; None where no image could be made.
            problem: then the reason.
        """
        row = None if image_hw is None else self._rows.append(image_hw)
        kept = Kept(content, row, problem)
        self._kept[content] = kept
        self._waiting.append(kept)
        return kept

    def sync(self) -> None:
        """Return when everything kept so far would be found again."""
        if self._waiting:
            self._rows.sync()
            for kept in self._waiting:
                self._lines.append(_KEPT.dump_json(kept))
            self._lines.sync()
            self._waiting.clear()

    def open(self, rows: Sequence[int]) -> StoredRows:
        """Choose rows to read, ``NO_ROW`` for an image of zeros.

        Raises:
            OSError: the store cannot be read.
            ValueError: there is no such row.
        """
        return open_rows(self._path, self._row_shape, rows)

    def close(self) -> None:
        """Sync and close the store; what ``open`` gave stays readable."""
        self.sync()
        self._rows.close()
        self._lines.close()
