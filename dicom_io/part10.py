"""DICOM files as bytes (PS3.10): the header that we put before a dataset, and datasets encoded."""

import zlib
from typing import Final

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID

from dicom_io.instance_header import is_uid
from dicom_io.uids import IMPLEMENTATION_CLASS_UID

_PREAMBLE: Final = b"\0" * 128 + b"DICM"
_GROUP_LENGTH_TAG: Final = b"\x02\x00\x00\x00UL\x04\x00"
_GROUP_LENGTH_END: Final = len(_PREAMBLE) + len(_GROUP_LENGTH_TAG) + 4


def file_header(*, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 7.1) for an encoded dataset.

    The version name is left out, so that the same instance gives the same file for ever.

    Args:
        transfer_syntax_uid: how the dataset is encoded.
        sop_class_uid: what the instance is.
        sop_instance_uid: which instance it is.

    Returns:
        The bytes that go before the dataset; equal for equal arguments.

    Raises:
        ValueError: a UID is malformed.
    """
    if not (is_uid(transfer_syntax_uid) and is_uid(sop_class_uid) and is_uid(sop_instance_uid)):
        raise ValueError("a UID for the file meta information is malformed")
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_file_meta_info(stream, meta)
    return _PREAMBLE + stream.getvalue()


def dataset_offset(content: bytes) -> int:
    """Where the dataset begins in a file that starts with ``file_header``.

    Args:
        content: the file, or at least its first 144 bytes.

    Returns:
        The number of bytes before the dataset.

    Raises:
        ValueError: this is not such a file.
    """
    group_length_tag = content[len(_PREAMBLE) : _GROUP_LENGTH_END - 4]
    if len(content) < _GROUP_LENGTH_END or group_length_tag != _GROUP_LENGTH_TAG:
        raise ValueError("the file does not begin with DICOM file meta information")
    group_length = int.from_bytes(content[_GROUP_LENGTH_END - 4 : _GROUP_LENGTH_END], "little")
    return _GROUP_LENGTH_END + group_length


def encode_dataset(dataset: Dataset, transfer_syntax: UID) -> bytes:
    """Encode a dataset as it goes over the network or behind the header of a file.

    Args:
        dataset: the object; its pixel data must already be in the transfer syntax.
        transfer_syntax: how to encode it.

    Returns:
        The encoded dataset without file meta information.

    Raises:
        ValueError: an element cannot be encoded.
    """
    stream = DicomBytesIO()
    stream.is_little_endian = transfer_syntax.is_little_endian
    stream.is_implicit_VR = transfer_syntax.is_implicit_VR
    try:
        write_dataset(stream, dataset)
    except Exception as cause:  # noqa: BLE001 - pydicom raises many kinds, with values in the text
        raise ValueError(f"an element cannot be encoded ({type(cause).__name__})") from None
    encoded = stream.getvalue()
    return _deflated(encoded) if transfer_syntax.is_deflated else encoded


def _deflated(encoded: bytes) -> bytes:
    """Compress a dataset for Deflated Explicit VR Little Endian (PS3.5 A.5): bare and even."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    compressed = compressor.compress(encoded) + compressor.flush()
    return compressed + b"\0" * (len(compressed) % 2)
