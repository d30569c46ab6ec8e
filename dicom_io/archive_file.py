"""Files of an archive export: DICOM with or without the header that PS3.10 asks for."""

from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.errors import ArchiveError


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
    try:
        dataset = dcmread(
            path, force=True, stop_before_pixels=keywords is not None, specific_tags=keywords
        )
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _transfer_syntax_as_found(dataset)
    except OSError as cause:
        raise ArchiveError(f"{path} cannot be read: {cause.strerror or 'broken off'}") from cause
    except Exception as cause:
        raise ArchiveError(f"{path} is damaged: {type(cause).__name__}") from cause
    return dataset


def _transfer_syntax_as_found(dataset: Dataset) -> UID:
    is_implicit, is_little_endian = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
