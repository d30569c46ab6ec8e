"""Files of an archive export: DICOM with or without the header that PS3.10 asks for."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.archive_items import Unreadable
from dicom_io.deflated import inflated_pieces, require_sane_inflation
from dicom_io.errors import ArchiveError

LARGEST_REPORT_BYTES: Final = 16 << 20
LARGEST_INFLATED_REPORT_BYTES: Final = 1 << 20
MOST_REPORT_ITEMS: Final = 50_000
MOST_MASK_ITEMS: Final = 100_000
_SOP_CLASS_UID: Final = 0x00080016
_PIECE_BYTES: Final = 1 << 20
_ITEM_TAGS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000), both byte orders


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file of an export, before it is opened.

    Attributes:
        path: of the file.
        size: bytes.
        changed_ns: when it was last written, nanoseconds since 1970.
    """

    path: Path
    size: int
    changed_ns: int


def export_files(folder: Path) -> Iterator[ExportFile | Unreadable]:
    """Every file below a folder, in a stable order, and every folder that cannot be read.

    Links to folders are not followed. Pipes and devices are no files: opening one could wait for
    ever.
    """
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(parent) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            folders = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError as cause:
            yield Unreadable(parent, f"cannot be read: {cause.strerror or type(cause).__name__}")
            continue
        for entry in entries:
            yield from _file(entry)
        waiting += reversed(folders)


def _file(entry: os.DirEntry[str]) -> Iterator[ExportFile | Unreadable]:
    try:
        if entry.is_file():
            facts = entry.stat()
            yield ExportFile(Path(entry.path), facts.st_size, facts.st_mtime_ns)
    except OSError as cause:
        reason = f"cannot be read: {cause.strerror or type(cause).__name__}"
        yield Unreadable(Path(entry.path), reason)


def looks_like_dicom(path: Path) -> bool:
    """By the preamble; where there is none, by a first element that datasets begin with.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        return True
    # (0008,0000) to (0008,0018) or file meta information, in either byte order.
    group, element = head[:2], head[2:4]
    first = {bytes((number, 0)) for number in range(0x19)}
    return (group in (b"\x08\x00", b"\x02\x00") and element in first) or (
        group in (b"\x00\x08", b"\x00\x02") and element[::-1] in first
    )


def storage_class_of(path: Path) -> str:
    """SOP Class UID of a file, or empty; nothing that comes after it is read.

    Raises:
        ArchiveError: the file cannot be read.
    """
    with _explaining(path), path.open("rb") as file:
        head = read_partial(file, stop_when=_is_past_storage_class, force=True)
        return str(head.get("SOPClassUID") or "")


def _is_past_storage_class(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag > _SOP_CLASS_UID)


def require_moderate_content(path: Path) -> None:
    """Refuse a structured report that is too large, or of too many items, to be one.

    It is parsed as a whole, and a parsed item takes a hundred times the eight bytes that it may
    have in the file.

    Raises:
        ArchiveError: it is too large.
        ImageRejected: it inflates to too much.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > LARGEST_REPORT_BYTES:
        raise ArchiveError(f"a report of more than {LARGEST_REPORT_BYTES >> 20} MiB")
    require_sane_inflation(path, LARGEST_INFLATED_REPORT_BYTES)
    _require_few_items(path, MOST_REPORT_ITEMS, "a report")


def require_moderate_items(path: Path) -> None:
    """Refuse a Segmentation of so many items that its header would take all memory.

    An item takes some 1,200 bytes and 60 microseconds once it is parsed, and may have eight bytes
    in the file.

    Raises:
        ArchiveError: there are too many.
        ImageRejected: it inflates to too much.
        OSError: the file cannot be read.
    """
    _require_few_items(path, MOST_MASK_ITEMS, "a mask")


def _require_few_items(path: Path, most: int, what: str) -> None:
    """Count items by their tags, before anything is parsed.

    Pixels that look like an item's tag count as one; that is rare.
    """
    for pieces in (_pieces(path), inflated_pieces(path)):
        found, end = Counter[bytes](), b""
        for piece in pieces:
            for tag in _ITEM_TAGS:
                found[tag] += (end + piece).count(tag)
            end = (end + piece)[1 - len(_ITEM_TAGS[0]) :]
            if max(found.values()) > most:
                raise ArchiveError(f"{what} of more than {most} items")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def read_header(path: Path, keywords: list[str]) -> Dataset:
    """Some attributes of a file, its pixel data left alone.

    Raises:
        ArchiveError: the file cannot be read.
    """
    return _read(path, keywords)


def read_dataset(path: Path) -> Dataset:
    """A whole object, ready to be decoded.

    Raises:
        ArchiveError: the file cannot be read.
    """
    return _read(path, None)


def _read(path: Path, keywords: list[str] | None) -> Dataset:
    with _explaining(path):
        dataset = dcmread(
            path, force=True, stop_before_pixels=keywords is not None, specific_tags=keywords
        )
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _transfer_syntax_as_found(dataset)
    return dataset


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file, as one kind of error."""
    try:
        yield
    except OSError as cause:
        raise ArchiveError(f"{path} cannot be read: {cause.strerror or 'broken off'}") from cause
    except Exception as cause:
        raise ArchiveError(f"{path} is damaged: {type(cause).__name__}") from cause


def _transfer_syntax_as_found(dataset: Dataset) -> UID:
    is_implicit, is_little_endian = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
