"""Files that only grow, one JSON object a line, and outlive a process that is killed while writing.

Such a process leaves whole lines and perhaps the beginning of one, which is passed over.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from model.private_file import private

Line = TypeVar("Line")


def read_lines(path: Path, kind: TypeAdapter[Line]) -> Iterator[Line]:
    """Every line that holds what it should; none where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield kind.validate_json(line)
            except ValidationError:
                continue


def replace_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write a file anew in one step.

    Raises:
        OSError: the file cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.unlink(missing_ok=True)  # a file that is there would keep its mode
    with open(unfinished, "wb", opener=private) as file:
        file.writelines(line + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


class LinesWriter:
    """Appends lines to a file; they are on disk when ``sync`` returns, and may be before."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it; half a line at its end is ended.

        Raises:
            OSError: the file cannot be written.
        """
        self._file = open(path, "a+b", opener=private)  # noqa: SIM115 - until close
        self._is_synced = True
        if self._file.tell():
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def append(self, line: bytes) -> None:
        """Write one line; ``line`` has no line break."""
        self._file.write(line + b"\n")
        self._is_synced = False

    def sync(self) -> None:
        """Return when everything written is on disk."""
        if not self._is_synced:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._is_synced = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
