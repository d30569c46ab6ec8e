"""An object without its pixels: as the decoding process hands it over, and as it is taken.

Elements go as they stand in the file, in its own byte order and character set, so that whoever
builds results from them meets what the sender wrote.
"""

from copy import copy
from io import BytesIO
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import BinaryIO, Final, cast

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pydicom.valuerep import VR

from dicom_io.deflated import require_sane_inflation
from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.refusal import refusing

LARGEST_ATTRIBUTES_BYTES: Final = 16 << 20
_LARGEST_ELEMENT_BYTES: Final = 1 << 20
_PIXEL_DATA: Final = 0x7FE00010
# Pixel Data, and those of floating point, which no radiograph has (PS3.3 C.7.6.3 to C.7.6.24).
_PIXELS: Final = frozenset({_PIXEL_DATA, 0x7FE00008, 0x7FE00009})
_PREAMBLE: Final = b"\0" * 128 + b"DICM"


def read_source(path: Path) -> Dataset:
    """A whole object out of a file of whatever origin.

    Raises:
        ImageRejected: it is no readable DICOM object, or would inflate beyond all bounds.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, refusing(RejectionReason.UNREADABLE):
        require_sane_inflation(path)
        # A file would reserve memory for whatever length an element claims; a map of it does not.
        with mmap(file.fileno(), 0, prot=PROT_READ) as content:
            return dcmread(cast("BinaryIO", content))


def attributes_of(source: Dataset) -> bytes:
    """An object as a PS3.10 file without its pixels and without elements above 1 MiB.

    Args:
        source: as ``read_source`` gave it; it loses what is left out.

    Returns:
        The file; a deflated object comes inflated.

    Raises:
        ImageRejected: what remains takes more than ``LARGEST_ATTRIBUTES_BYTES``, or cannot be
            written.
    """
    with refusing(RejectionReason.UNREADABLE):
        for tag in list(source.keys()):
            element = source.get_item(tag)
            if _is_bulky(element):
                del source[tag]
            elif isinstance(element, RawDataElement) and element.VR is None:
                source[tag] = element._replace(VR=_vr_of(tag))
        meta = copy(source.file_meta)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
        stream = DicomBytesIO()
        stream.is_implicit_VR, stream.is_little_endian = False, True
        write_file_meta_info(stream, meta, enforce_standard=False)
        is_implicit_vr, is_little_endian = source.original_encoding
        stream.is_implicit_VR, stream.is_little_endian = (
            bool(is_implicit_vr),
            bool(is_little_endian),
        )
        # Elements that are still as they were read are written so, whatever stands in them.
        write_dataset(stream, source)
    if len(stream.getvalue()) > LARGEST_ATTRIBUTES_BYTES:
        detail = f"its attributes take more than {LARGEST_ATTRIBUTES_BYTES >> 20} MiB"
        raise ImageRejected(RejectionReason.UNREADABLE, detail)
    return _PREAMBLE + stream.getvalue()


def source_without_pixels(
    content: bytes, path: Path, transfer_syntax_uid: str, *, has_pixels: bool
) -> Dataset:
    """The object that ``attributes_of`` wrote.

    Args:
        content: what it gave.
        path: of the object's file.
        transfer_syntax_uid: of that file.
        has_pixels: whether the object has Pixel Data; an empty element then stands for it.

    Returns:
        The object; its ``filename`` is the path.

    Raises:
        ImageRejected: the content cannot be read.
    """
    with refusing(RejectionReason.UNREADABLE):
        source = dcmread(BytesIO(content))
        source.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
        if has_pixels:
            source.add_new(_PIXEL_DATA, "OW", b"")
        source.filename = str(path)
        return source


def _is_bulky(element: DataElement | RawDataElement) -> bool:
    value = element.value
    if element.tag in _PIXELS:
        return True
    return isinstance(value, bytes) and len(value) > _LARGEST_ELEMENT_BYTES


def _vr_of(tag: BaseTag) -> str:
    """For an element that came without VR, or with one that is none."""
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else VR.UN
    return vr if len(vr) == 2 else VR.UN  # "US or SS"
