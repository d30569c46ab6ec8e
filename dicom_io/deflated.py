"""A deflated dataset is inflated only if what comes out of it is of a sane size.

Deflate packs up to a thousand bytes into one, and pydicom inflates a whole dataset at once, before
anything in it can be looked at.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_io.errors import ImageRejected, RejectionReason

# The largest film that is read (100 megapixels of 32 bits) with room for its attributes.
LARGEST_INFLATED_BYTES: Final = 512 << 20
_PIECE_BYTES: Final = 1 << 20


def require_sane_inflation(path: Path, most_bytes: int = LARGEST_INFLATED_BYTES) -> None:
    """Refuse a deflated file that would inflate beyond a limit; look at no other file.

    Args:
        path: of a DICOM file, with or without preamble.
        most_bytes: the most that may come out; not more than two pieces of 1 MiB are held.

    Raises:
        ImageRejected: more would come out.
        OSError: the file cannot be read.
        Exception: whatever pydicom raises where the file meta information is damaged.
    """
    for _ in inflated_pieces(path, most_bytes):
        pass


def inflated_pieces(path: Path, most_bytes: int = LARGEST_INFLATED_BYTES) -> Iterator[bytes]:
    """What a deflated dataset inflates to, a piece of 1 MiB at most at a time; else nothing.

    Raises:
        ImageRejected: more than ``most_bytes`` come out.
        OSError: the file cannot be read.
        Exception: whatever pydicom raises where the file meta information is damaged.
    """
    with path.open("rb") as file:
        read_preamble(file, force=True)
        meta = read_dataset(file, False, True, stop_when=_is_past_file_meta)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        inflated = 0
        while not inflater.eof:
            deflated = inflater.unconsumed_tail or file.read(_PIECE_BYTES)
            if not deflated:
                return
            piece = inflater.decompress(deflated, _PIECE_BYTES)
            inflated += len(piece)
            if inflated > most_bytes:
                detail = f"it inflates to more than {most_bytes >> 20} MiB"
                raise ImageRejected(RejectionReason.TOO_MUCH_MEMORY, detail)
            yield piece


def _is_past_file_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    """PS3.10 7.1: file meta information is group 2, explicit VR little endian."""
    return tag.group != 2
