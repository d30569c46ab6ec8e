"""Objects on their way out: what they are, which contexts they need, and in what form they go."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import PresentationContext, build_context

from dicom_io.errors import StorageError
from dicom_io.instance_header import read_identifiers
from dicom_io.jpeg_decoder import install_decoders
from dicom_io.part10 import file_header

_MAXIMUM_CONTEXTS: Final = 128  # PS3.8 9.3.2.2: odd numbers of one byte
_UNCOMPRESSED: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@dataclass(frozen=True)
class OutgoingObject:
    """An object to be sent.

    Attributes:
        source: the file or the dataset.
        sop_class_uid: what it is.
        sop_instance_uid: which one it is, as the dataset itself says.
        transfer_syntax: the syntax it is in.
    """

    source: Path | Dataset
    sop_class_uid: UID
    sop_instance_uid: UID
    transfer_syntax: UID


def examine(source: Path | str | Dataset) -> OutgoingObject:
    """Read what an object is, without its pixels.

    Args:
        source: path of a Part 10 file, or a dataset with file meta information.

    Returns:
        The object, ready to be sent.

    Raises:
        StorageError: the object cannot be read, or does not say what it is.
    """
    try:
        if isinstance(source, Dataset):
            syntax = source.file_meta.TransferSyntaxUID
            uids = (str(source.SOPClassUID), str(source.SOPInstanceUID), str(syntax))
        else:
            source = Path(source)
            uids = _uids_of_file(source)
    except Exception as cause:
        raise StorageError(f"the object cannot be read ({type(cause).__name__})") from cause
    return OutgoingObject(source, *map(UID, uids))


def _uids_of_file(path: Path) -> tuple[str, str, str]:
    """The UIDs of class, instance and transfer syntax; the dataset is believed, not the meta."""
    meta, offset = split_dataset(path)
    with path.open("rb") as file:
        file.seek(offset)
        identifiers = read_identifiers(file.read(), meta.TransferSyntaxUID)
    return (
        identifiers.sop_class_uid or meta.MediaStorageSOPClassUID,
        identifiers.sop_instance_uid or meta.MediaStorageSOPInstanceUID,
        meta.TransferSyntaxUID,
    )


def batches(outgoing: Sequence[OutgoingObject]) -> Iterator[list[OutgoingObject]]:
    """Split a list, in order, so that the contexts of each part fit into one association."""
    batch: list[OutgoingObject] = []
    for candidate in outgoing:
        if len(contexts_for([*batch, candidate])) > _MAXIMUM_CONTEXTS:
            yield batch
            batch = []
        batch.append(candidate)
    if batch:
        yield batch


def contexts_for(batch: Sequence[OutgoingObject]) -> list[PresentationContext]:
    """A context for each class and transfer syntax present, and for each class a way out."""
    pairs = dict.fromkeys((o.sop_class_uid, o.transfer_syntax) for o in batch)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    for sop_class in dict.fromkeys(o.sop_class_uid for o in batch):
        spare: list[str | UID] = [
            syntax for syntax in _UNCOMPRESSED if (sop_class, syntax) not in pairs
        ]
        if spare:
            contexts.append(build_context(sop_class, spare))
    return contexts


def decompressed(outgoing: OutgoingObject) -> Dataset:
    """The object with plain pixels, little endian; pynetdicom then writes the VRs as accepted.

    The UID stays: it is the same image for everyone who reads it (PS3.5 does not ask for a new one
    where decompression is all that happens).

    Raises:
        StorageError: the object is big endian; a codec raises whatever it likes besides.
    """
    if not outgoing.transfer_syntax.is_little_endian:
        raise StorageError("big endian pixels are not swapped")
    source = outgoing.source
    dataset = deepcopy(source) if isinstance(source, Dataset) else dcmread(source)
    if outgoing.transfer_syntax.is_compressed:
        install_decoders()
        dataset.decompress(generate_instance_uid=False)
    return dataset


@contextmanager
def named_alike(outgoing: OutgoingObject, source: Path | Dataset) -> Iterator[Path | Dataset]:
    """The object, in a file whose meta information names the instance that the dataset is.

    pynetdicom announces a file by its file meta information; where that names another instance, as
    some exports do, a peer would rightly refuse the object.
    """
    if isinstance(source, Dataset):
        yield source
        return
    meta, offset = split_dataset(source)
    announced = (meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID"))
    if announced == (outgoing.sop_class_uid, outgoing.sop_instance_uid):
        yield source
        return
    with NamedTemporaryFile(suffix=".dcm") as renamed:
        header = file_header(
            transfer_syntax_uid=outgoing.transfer_syntax,
            sop_class_uid=outgoing.sop_class_uid,
            sop_instance_uid=outgoing.sop_instance_uid,
        )
        renamed.write(header + source.read_bytes()[offset:])
        renamed.flush()
        yield Path(renamed.name)
