"""The technical identifiers of an encoded dataset, read from its head without its pixels.

Nothing about the patient is read. Whatever a peer may send, the answer is identifiers or the reason
why there are none; never an exception.
"""

import re
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

_UID_SYNTAX: Final = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_UID_LENGTH: Final = 64
_LAST_TAG: Final = Tag("SeriesInstanceUID")
_IDENTIFIERS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MODEL_NAME: Final = "ManufacturerModelName"
# Where a dataset is deflated, only so much of it is inflated: the head of any radiograph fits.
_INFLATED_HEAD_BYTES: Final = 1 << 22
# Each item of a sequence is parsed, wanted or not, and an empty one of eight bytes takes a hundred
# times its length; the head of a presentation state of some thousand films still passes.
_MOST_READS: Final = 50_000


@dataclass(frozen=True)
class InstanceIdentifiers:
    """What an instance says of itself.

    Attributes:
        sop_class_uid: its SOP Class UID, or None if it is missing or malformed.
        sop_instance_uid: its SOP Instance UID, or None.
        study_uid: its Study Instance UID, or None.
        series_uid: its Series Instance UID, or None.
        problem: why something is None, in words a technician understands; None if all is well.
    """

    sop_class_uid: str | None
    sop_instance_uid: str | None
    study_uid: str | None
    series_uid: str | None
    problem: str | None


def is_uid(text: object) -> bool:
    """Whether a value has the form and the length of a UID (PS3.5 9.1).

    Components with leading zeros are let pass: devices send them, and they do no harm. Empty ones
    are not: ``..`` has a meaning in paths and URLs.
    """
    return (
        isinstance(text, str)
        and len(text) <= _UID_LENGTH
        and _UID_SYNTAX.fullmatch(text) is not None
    )


def read_identifiers(encoded_dataset: bytes, transfer_syntax_uid: str) -> InstanceIdentifiers:
    """Read the UIDs in the head of an encoded dataset.

    Args:
        encoded_dataset: a dataset without file meta information, from whoever.
        transfer_syntax_uid: how it is encoded.

    Returns:
        The UIDs that are there and well-formed, and what is wrong with the others.
    """
    try:
        head = _head_of(encoded_dataset, transfer_syntax_uid, _IDENTIFIERS)
        found = {keyword: _text(head, keyword) for keyword in _IDENTIFIERS}
    except _EndlessHead:
        return InstanceIdentifiers(
            None, None, None, None, "the dataset cannot be parsed (too much before its UIDs)"
        )
    except Exception as cause:  # noqa: BLE001 - a hostile dataset raises anything, RecursionError too
        return InstanceIdentifiers(
            None, None, None, None, f"the dataset cannot be parsed ({type(cause).__name__})"
        )
    uids = {keyword: text if is_uid(text) else None for keyword, text in found.items()}
    problems = [
        f"{keyword} is {'malformed' if found[keyword] else 'missing'}"
        for keyword, uid in uids.items()
        if uid is None
    ]
    return InstanceIdentifiers(
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        problem="; ".join(problems) or None,
    )


def read_model_name(encoded_dataset: bytes, transfer_syntax_uid: str) -> str:
    """Read which product made an instance: Manufacturer's Model Name (0008,1090).

    Args:
        encoded_dataset: a dataset without file meta information, from whoever.
        transfer_syntax_uid: how it is encoded.

    Returns:
        The name; empty where there is none, or where the dataset cannot be parsed.
    """
    try:
        head = _head_of(encoded_dataset, transfer_syntax_uid, (_MODEL_NAME,))
        return _text(head, _MODEL_NAME)
    except Exception:  # noqa: BLE001 - a hostile dataset raises anything, RecursionError too
        return ""


class _EndlessHead(Exception):
    """Parsing was ended; it never leaves this module."""


class _BoundedReader(BytesIO):
    """Content of which only so many pieces are read; after them nothing but an error comes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads_left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """The next piece, as of any file."""
        self.reads_left -= 1
        if self.reads_left < 0:
            raise _EndlessHead
        return super().read(size)


def _head_of(
    encoded_dataset: bytes, transfer_syntax_uid: str, keywords: tuple[str, ...]
) -> Dataset:
    syntax = UID(transfer_syntax_uid)
    if syntax.is_deflated:
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        encoded_dataset = inflater.decompress(encoded_dataset, _INFLATED_HEAD_BYTES)
    reader = _BoundedReader(encoded_dataset)
    try:
        return read_dataset(
            reader,
            is_implicit_VR=syntax.is_implicit_VR,
            is_little_endian=syntax.is_little_endian,
            stop_when=_is_past_identifiers,
            specific_tags=[Tag(keyword) for keyword in keywords],
        )
    except Exception as cause:
        if reader.reads_left < 0:  # which pydicom, within a sequence, makes another error of
            raise _EndlessHead from cause
        raise


def _is_past_identifiers(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag > _LAST_TAG)


def _text(head: Dataset, keyword: str) -> str:
    if keyword not in head:
        return ""
    element = head.get_item(keyword)
    if isinstance(element, RawDataElement) and len(element.value or b"") != element.length:
        return "cut off"  # the dataset ends inside it; what is there may be another object's UID
    return str(head[keyword].value or "")
