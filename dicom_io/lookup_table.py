"""Lookup tables of a film: modality LUT and VOI LUT (PS3.3 C.11.1.1.1 and C.11.2.1.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from dicom_io.errors import ImageRejected, RejectionReason


@dataclass(frozen=True)
class LookupTable:
    """A table of values.

    Attributes:
        first: the value that the first entry stands for; smaller ones have the first entry, too,
            as those beyond the last entry have the last.
        entries_n: uint8 or uint16, (entries,).
    """

    first: int
    entries_n: NDArray[np.uint8] | NDArray[np.uint16]

    def look_up(self, values_hw: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The entries of values of any shape.

        Args:
            values_hw: integers of any kind.

        Returns:
            float32, same shape.
        """
        places_hw = values_hw.astype(np.int64) - self.first
        return self.entries_n[np.clip(places_hw, 0, len(self.entries_n) - 1)].astype(np.float32)


def entries_of(film: Dataset, keyword: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The entries of the first table of a sequence, however they are stored.

    Args:
        film: with the sequence.
        keyword: ``ModalityLUTSequence`` or ``VOILUTSequence``.

    Returns:
        uint8 or uint16, (entries,).

    Raises:
        ImageRejected: the table has fewer entries than it states.
    """
    item = film[keyword].value[0]
    count, _, bits = (int(number) for number in item.LUTDescriptor)
    count = count & 0xFFFF or 1 << 16  # 0 stands for 65536; it may have been read as signed
    meta = getattr(film, "file_meta", None)
    is_big = meta is not None and meta.get("TransferSyntaxUID") == ExplicitVRBigEndian
    words = _as_little_endian_words(item.LUTData, is_big)
    # Entries of 8 bits take one byte each; devices also send them in a word each.
    kind = "u1" if bits <= 8 and len(words) - count in (0, 1) else "<u2"
    if len(words) < count * np.dtype(kind).itemsize:
        detail = f"{keyword} has fewer entries than it states"
        raise ImageRejected(RejectionReason.UNDECODABLE, detail)
    return np.frombuffer(words, dtype=kind, count=count)


def read_lookup_table(film: Dataset, keyword: str, values_hw: NDArray[Any]) -> LookupTable:
    """Read the first table of a sequence.

    Args:
        film: with the sequence.
        keyword: ``ModalityLUTSequence`` or ``VOILUTSequence``.
        values_hw: what will be looked up. Where it has values below zero the first value that is
            mapped is a signed number, whatever value representation it came with.

    Raises:
        ImageRejected: the table has fewer entries than it states.
    """
    first = int(film[keyword].value[0].LUTDescriptor[1])
    if first >= 1 << 15 and values_hw.min() < 0:
        first -= 1 << 16
    return LookupTable(first, entries_of(film, keyword))


def _as_little_endian_words(data: bytes | int | list[int], is_big: bool) -> bytes:
    """Data of a table, which a reader gives as bytes (OW) or as numbers (US, SS)."""
    if isinstance(data, bytes):
        if not is_big:
            return data
        whole = data[: len(data) // 2 * 2]
        return np.frombuffer(whole, dtype=">u2").astype("<u2").tobytes()
    numbers = np.atleast_1d(np.asarray(data, dtype=np.int64))
    return (numbers & 0xFFFF).astype("<u2").tobytes()
