"""What each file of an export turned out to be, so that no file is opened twice.

A file that has its size and time of change is taken to be what it was.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from dicom_io.archive import ExportedImage, ExportedMask, ExportedReport, ExportFile
from model.json_lines import LinesWriter, read_lines


@dataclass(frozen=True, slots=True)
class Examined:
    """One file of an export, as it was read.

    Attributes:
        file: path, size and time of change.
        image: what it is; all three None where it is nothing of use.
        mask: see ``image``.
        report: see ``image``.
        content: hash of an image's or a mask's bytes; empty for anything else.
    """

    file: ExportFile
    image: ExportedImage | None = None
    mask: ExportedMask | None = None
    report: ExportedReport | None = None
    content: str = ""


_EXAMINED = TypeAdapter(Examined)


class FileJournal:
    """The files of one export that were examined, on disk."""

    def __init__(self, path: Path) -> None:
        """Open a journal, or begin it.

        Raises:
            OSError: it cannot be read or written.
        """
        self._known = {one.file.path: one for one in read_lines(path, _EXAMINED)}
        self._lines = LinesWriter(path)

    def take(self, file: ExportFile) -> Examined | None:
        """What a file is, if it was examined and has not changed since; each can be taken once."""
        examined = self._known.pop(file.path, None)
        return examined if examined is not None and examined.file == file else None

    def add(self, examined: Examined) -> None:
        """Note what a file is; one whose name or texts are no Unicode is read again each time."""
        with suppress(PydanticSerializationError):
            self._lines.append(_EXAMINED.dump_json(examined, exclude_defaults=True))

    def sync(self) -> None:
        """Return when everything noted is on disk."""
        self._lines.sync()

    def close(self) -> None:
        """Close the journal."""
        self._lines.close()
