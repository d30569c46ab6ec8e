"""What a result object takes over from the radiograph that it was made of.

Patient and study are the source's, value for value and in its own character set. What identifies
patient and study is taken as it stands, even where it breaks a rule of its value representation,
so that the archive files the result with its source. Everything else is taken only if it is valid,
and a required attribute without a value stays empty: nothing is invented.
"""

import re
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Final

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.config import IGNORE, RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.valuerep import STR_VR, validate_value

from dicom_io.instance_header import is_uid

# PS3.3 C.7.1.1 and C.7.2.1; type 2 there, so always present in a result, if empty.
IDENTIFYING: Final = (
    "PatientName",
    "PatientID",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
REQUIRED_IF_VALID: Final = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
# Type 3 in the patient, general study, patient study and SOP common modules.
OPTIONAL: Final = (
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "PhysiciansOfRecord",
    "ConsultingPhysicianName",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "AdmissionID",
)
# Sequences are taken only if every item holds one of each group of attributes.
_CODE: Final = (
    ("CodeValue", "LongCodeValue", "URNCodeValue"),
    ("CodingSchemeDesignator", "URNCodeValue"),
    ("CodeMeaning",),
)
_ENTITY: Final = (("LocalNamespaceEntityID", "UniversalEntityID"),)
OPTIONAL_SEQUENCES: Final = {
    "IssuerOfAccessionNumberSequence": _ENTITY,
    "IssuerOfPatientIDQualifiersSequence": (
        ("UniversalEntityID", "IdentifierTypeCode", "AssigningFacilitySequence"),
    ),
    "OtherPatientIDsSequence": (("PatientID",), ("IssuerOfPatientID", "TypeOfPatientID")),
    "IssuerOfAdmissionIDSequence": _ENTITY,
    "ProcedureCodeSequence": _CODE,
    "DeidentificationMethodCodeSequence": _CODE,
}

DEFINED_CHARACTER_SETS: Final = frozenset(
    ["ISO_IR 192", "GB18030", "GBK", "ISO 2022 IR 6"]
    + [
        f"{form} {number}"
        for form in ("ISO_IR", "ISO 2022 IR")
        for number in (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 203)
    ]
    + [f"ISO 2022 IR {number}" for number in (58, 87, 149, 159)]
)


def inherited_attributes(source: Dataset) -> Dataset:
    """The patient, study and character set attributes of a result.

    Args:
        source: the radiograph; no value of it is changed.

    Returns:
        A dataset with exactly those attributes, ready to be laid over a result object.
    """
    inherited = Dataset()
    inherited.StudyInstanceUID = source.StudyInstanceUID
    character_set = specific_character_set(source)
    if character_set:
        inherited.SpecificCharacterSet = character_set
        # Text is decoded when it is first asked for: by what is meant, not by what is said.
        implicit_vr, little_endian = source.original_encoding
        source.set_original_encoding(implicit_vr, little_endian, convert_encodings(character_set))
    for keyword in IDENTIFYING:
        inherited.add(_identifying_element(source, keyword))
    for keyword in REQUIRED_IF_VALID:
        inherited.add(_valid_element(source, keyword) or _empty_element(keyword))
    for keyword in OPTIONAL:
        element = _valid_element(source, keyword)
        if element is not None and not element.is_empty:
            inherited.add(element)
    for keyword, groups in OPTIONAL_SEQUENCES.items():
        items = _complete_items(source, keyword, groups)
        if items:
            inherited.add(DataElement(_tag(keyword), "SQ", Sequence(items)))
    return inherited


def source_skeleton(source: Dataset) -> Dataset:
    """The least of a source that a result is built on: identity, geometry and compression.

    It holds no patient and no private data; ``inherited_attributes`` brings the former.

    Args:
        source: the radiograph.

    Returns:
        A new dataset with all type 2 patient and study attributes empty.
    """
    skeleton = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(skeleton, keyword, source[keyword].value)
    for keyword in (*IDENTIFYING, *REQUIRED_IF_VALID):
        skeleton.add(_empty_element(keyword))
    skeleton.Rows, skeleton.Columns = int(source.Rows), int(source.Columns)
    skeleton.Modality = str(source.get("Modality") or "OT")
    if is_uid(source.get("FrameOfReferenceUID")):
        skeleton.FrameOfReferenceUID = source.FrameOfReferenceUID
        indicator = _valid_element(source, "PositionReferenceIndicator")
        skeleton.PositionReferenceIndicator = indicator.value if indicator else ""
    if source.get("LossyImageCompression") == "01":
        skeleton.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            element = _valid_element(source, keyword)
            if element is not None and not element.is_empty:
                skeleton.add(element)
    return skeleton


def image_reference(source: Dataset) -> Dataset:
    """An item that references the source image (PS3.3 10.3, Image SOP Instance Reference)."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return reference


def acquisition_equipment(source: Dataset) -> Dataset | None:
    """An item of Contributing Equipment (PS3.3 C.12.1.1.5) for what acquired the source.

    Returns:
        The item, or None where the source names no manufacturer, which is required in it.
    """
    equipment = Dataset()
    for keyword in (
        "Manufacturer",
        "InstitutionName",
        "StationName",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
    ):
        element = _valid_element(source, keyword)
        if element is not None and not element.is_empty:
            equipment.add(element)
    if "Manufacturer" not in equipment:
        return None
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109101", "DCM"
    purpose.CodeMeaning = "Acquisition Equipment"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.ContributionDescription = "Acquired the source image"
    return equipment


def procedure_code(source: Dataset) -> Code | None:
    """The performed procedure that the source names, if it names exactly one, in a valid code."""
    items = _complete_items(source, "ProcedureCodeSequence", _CODE)
    if len(items) != 1:
        return None
    parts = []
    for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"):
        element = _valid_element(items[0], keyword)
        if element is None or element.is_empty or element.VM != 1:
            return None
        parts.append(str(element.value))
    return Code(*parts)


def patient_orientation(source: Dataset) -> list[str]:
    """Patient Orientation of the source if it has two usable values, else an empty list."""
    element = _valid_element(source, "PatientOrientation")
    if element is None or element.VM != 2 or not all(element.value):
        return []
    values = [str(value).strip().upper() for value in element.value]
    return values if all(re.fullmatch("[APRLHF]{1,3}", value) for value in values) else []


def specific_character_set(source: Dataset) -> list[str]:
    """The defined terms of Specific Character Set (PS3.3 C.12.1.1.2) that the source means.

    Spellings such as ``ISO-IR 100`` and ``iso_ir_100`` are corrected, ``UTF-8`` and the like are
    not terms of the standard and are corrected as well.

    Returns:
        The terms, the first possibly empty; an empty list where the source names none.

    """
    value = source.get("SpecificCharacterSet")
    given = [value] if isinstance(value, str) else list(value or ())
    terms = [_defined_term(str(term)) for term in given]
    while terms and not terms[-1]:
        terms.pop()
    if len(terms) == 1 and terms[0].startswith("ISO 2022 IR "):
        # With code extensions there must be a second term (C.12.1.1.2). Alone this one is meant,
        # or what it extends, without which nothing could be said in ASCII.
        of_more_bytes = terms[0][-2:] in _MULTI_BYTE
        terms = ["", terms[0]] if of_more_bytes else [terms[0].replace("ISO 2022 IR ", "ISO_IR ")]
    return ["" if term == "ISO_IR 6" else term for term in terms] if any(terms) else []


def local_time(created: datetime, source: Dataset) -> datetime:
    """``created`` on the clock that the source's dates and times are meant on.

    Timezone Offset From UTC (PS3.3 C.12.1.1.8) applies to every date and time of an object, so a
    result that inherits it must state its own creation in that zone. Without it they are local, and
    the node, which stands in the same place, states its own local time.

    Args:
        created: the time of creation; a time without zone is taken as the source's own.
        source: the radiograph.

    Returns:
        The time in the source's zone where it names one, else in the node's; with its offset from
        UTC, unless ``created`` has none.
    """
    if created.tzinfo is None:
        return created
    element = _valid_element(source, "TimezoneOffsetFromUTC")
    if element is not None and element.value:
        return created.astimezone(timezone(_utc_offset(str(element.value))))
    return created.astimezone()


def _utc_offset(text: str) -> timedelta:
    """Read ``&ZZXX`` of PS3.3 C.12.1.1.8.

    Raises:
        ValueError: no offset that exists on Earth.
    """
    if not re.fullmatch(r"[+-]\d{2}[0-5]\d", text):
        raise ValueError("not an offset from UTC")
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    offset = -offset if text[0] == "-" else offset
    if not timedelta(hours=-12) <= offset <= timedelta(hours=14):
        raise ValueError("no zone has this offset from UTC")
    return offset


_MULTI_BYTE: Final = ("58", "87", "49", "59")


def _defined_term(given: str) -> str:
    """Correct the spelling of one term; empty if it means none that the standard defines."""
    term = re.sub(r"[\s_-]+", " ", given.strip().upper())
    if term in ("", "ISO IR 6"):
        return ""
    if term in ("UTF 8", "UTF8", "ISO IR 192", "ISO 2022 IR 192"):
        return "ISO_IR 192"
    term = term.replace("ISO IR ", "ISO_IR ")
    return term if term in DEFINED_CHARACTER_SETS else ""


def _identifying_element(source: Dataset, keyword: str) -> DataElement:
    """The element as it stands in the source, or an empty one.

    Devices write the right text under the wrong value representation, as SH for LO. The text is
    what archives file by; it is kept, under the representation of the dictionary.
    """
    vr = dictionary_VR(_tag(keyword))
    try:
        element = source[keyword]
    except (KeyError, ValueError, TypeError, OverflowError):
        return _empty_element(keyword)
    value = element.value
    if vr != element.VR:
        if element.VR not in STR_VR or element.is_empty:
            return _empty_element(keyword)
        value = [str(part) for part in value] if element.VM > 1 else str(value)
    return DataElement(_tag(keyword), vr, value, validation_mode=IGNORE)


def _valid_element(source: Dataset, keyword: str) -> DataElement | None:
    """A copy of the element with every value checked, or None if it is missing or invalid."""
    vr = dictionary_VR(_tag(keyword))
    try:
        element = source[keyword]
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    if vr != element.VR:
        return None
    if keyword == "TimezoneOffsetFromUTC" and element.VM > 1:
        return None  # of two clocks neither is the film's
    values = element.value if element.VM > 1 else [element.value]
    try:
        kept = [_checked(keyword, vr, value) for value in values]
    except (ValueError, TypeError):
        return None
    return DataElement(_tag(keyword), vr, kept if len(kept) > 1 else kept[0])


def _checked(keyword: str, vr: str, value: object) -> object:
    """One value as the standard wants it.

    Raises:
        ValueError: it breaks a rule of its value representation or its enumeration.
    """
    if value is None or value == "":
        return value
    if vr in ("DA", "TM"):
        # ACR-NEMA wrote 1999.12.31 and 23:59:59, and old devices still do (PS3.5 6.2).
        value = str(value).strip().replace("." if vr == "DA" else ":", "")
        if vr == "DA":
            datetime.strptime(value, "%Y%m%d")
    if keyword == "TimezoneOffsetFromUTC":
        _utc_offset(str(value))
    if keyword == "PatientSex":
        value = str(value).strip().upper()
        if value not in ("M", "F", "O"):
            raise ValueError("not an enumerated value of Patient's Sex")
    validate_value(vr, value if vr in ("PN", "DS", "IS") else str(value), RAISE)
    return value


def _complete_items(
    source: Dataset, keyword: str, groups: tuple[tuple[str, ...], ...]
) -> list[Dataset]:
    """Copies of a sequence's items without private data; none if any item is incomplete."""
    try:
        items = [deepcopy(item) for item in source.get(keyword) or ()]
    except (ValueError, TypeError):
        return []
    for item in items:
        item.remove_private_tags()
    complete = all(
        any(item.get(alternative) for alternative in group) for item in items for group in groups
    )
    return items if complete else []


def _empty_element(keyword: str) -> DataElement:
    vr = dictionary_VR(_tag(keyword))
    return DataElement(_tag(keyword), vr, "")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag
