"""What every result object has in common: identity, series, equipment, creation and qualification.

A builder makes the part that is particular to its kind; ``complete`` then lays the common part over
it, so that all kinds agree, and nothing random or machine-dependent stays in an object.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_io.findings import ModelIdentity
from dicom_io.source_attributes import (
    acquisition_equipment,
    inherited_attributes,
    local_time,
)
from dicom_io.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MANUFACTURER_MODEL_NAME,
    ResultKind,
    result_series_uid,
    result_uid,
)

LONG_STRING_LIMIT: Final = 64
RESEARCH_ONLY: Final = "Research use only. Not for diagnosis."


@dataclass(frozen=True)
class SeriesLabel:
    """How the series of one kind of result is listed.

    Attributes:
        number: Series Number; high, so that results are listed after the acquired series.
        title: what the series holds, in a reader's words.
    """

    number: int
    title: str


SERIES: Final = {
    ResultKind.SEGMENTATION: SeriesLabel(9101, "lung segmentation"),
    ResultKind.LABEL_MAP_SEGMENTATION: SeriesLabel(9102, "lung label map"),
    ResultKind.SECONDARY_CAPTURE: SeriesLabel(9103, "saliency overlay"),
    ResultKind.PRESENTATION_STATE: SeriesLabel(9104, "lung contours"),
    ResultKind.REPORT: SeriesLabel(9105, "report"),
}


def complete(
    result: Dataset,
    source: Dataset,
    model: ModelIdentity,
    kind: ResultKind,
    created: datetime,
    replaces_version: str | None = None,
) -> Dataset:
    """Give a result object its identity and everything that is common to all kinds.

    Args:
        result: the object with the attributes of its own kind; changed in place.
        source: the radiograph that was read.
        model: the model that read it.
        kind: the kind of ``result``.
        created: when the result was made.
        replaces_version: the model version whose results these supersede, if any.

    Returns:
        ``result``, with file meta information, ready to be written.
    """
    for element in inherited_attributes(source):
        result.add(element)
    result.SOPInstanceUID = result_uid(source.SOPInstanceUID, model.version, kind)
    result.SeriesInstanceUID = result_series_uid(source.StudyInstanceUID, model.version, kind)
    result.SeriesNumber = SERIES[kind].number
    result.SeriesDescription = series_description(model, kind, replaces_version)
    result.InstanceNumber = _instance_number(source)
    if kind is not ResultKind.REPORT:
        # An unpaired part, so that Laterality (type 2C, PS3.3 C.7.3.1) has no place here.
        result.BodyPartExamined = "CHEST"

    result.Manufacturer = MANUFACTURER
    result.ManufacturerModelName = MANUFACTURER_MODEL_NAME
    result.DeviceSerialNumber = model.sha256[:16]
    result.SoftwareVersions = plain_text(f"{model.name} {model.version}")
    result.ContentQualification = "RESEARCH"
    equipment = acquisition_equipment(source)
    if equipment is not None:
        result.ContributingEquipmentSequence = [equipment]

    moment = local_time(created, source)
    for date, time in _CREATION_ATTRIBUTES:
        if date in result or date == "InstanceCreationDate":
            setattr(result, date, moment.strftime("%Y%m%d"))
            setattr(result, time, moment.strftime("%H%M%S"))
    result.preamble = b"\0" * 128
    result.file_meta = _file_meta(result)
    return result


def series_description(
    model: ModelIdentity, kind: ResultKind, replaces_version: str | None = None
) -> str:
    """Name model, version, content and status in the 64 characters of a Series Description.

    Args:
        model: the model that made the series.
        kind: what the series holds.
        replaces_version: the model version whose series this one supersedes, if any.

    Returns:
        Printable ASCII; what does not fit is left out, the versions last.
    """
    head = f"{model.name} {model.version} {SERIES[kind].title}"
    replaces = f", replaces {replaces_version}" if replaces_version else ""
    candidates = [
        f"{head}, research use only{replaces}",
        f"{head}, research{replaces}",
        f"{model.version} {SERIES[kind].title}, research{replaces}",
    ]
    fitting = [text for text in candidates if len(text) <= LONG_STRING_LIMIT]
    return plain_text(fitting[0] if fitting else candidates[-1])


def elements_of(built: Dataset) -> Dataset:
    """The elements of a library's object alone.

    Lookup tables over them are left behind, and so is Contributing Equipment, where highdicom
    names itself with the time of this very run.
    """
    result = Dataset()
    for element in built:
        if element.keyword != "ContributingEquipmentSequence":
            result.add(element)
    return result


def plain_text(text: str, limit: int = LONG_STRING_LIMIT) -> str:
    """Text that every character set of DICOM can hold: printable ASCII without backslash."""
    kept = "".join(
        character if " " <= character <= "}" and character != "\\" else "?" for character in text
    )
    return kept[:limit].strip()


def encoded(result: Dataset) -> bytes:
    """The result as the bytes of a DICOM file (PS3.10)."""
    with DicomBytesIO() as buffer:
        result.save_as(buffer, enforce_file_format=True)
        return bytes(buffer.getvalue())


def decoded(content: bytes) -> Dataset:
    """The dataset of the bytes of a DICOM file."""
    return dcmread(DicomBytesIO(content))


_CREATION_ATTRIBUTES: Final = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("PresentationCreationDate", "PresentationCreationTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)


def _instance_number(source: Dataset) -> int:
    """The source's number, so that results are listed in the order of their sources."""
    try:
        number = int(source.get("InstanceNumber") or 1)
    except (TypeError, ValueError, OverflowError):
        return 1
    return number if 1 <= number < 2**31 else 1


def _file_meta(result: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(result.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(result.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
