import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import DataElement, Dataset, Sequence, dcmread
from pydicom.data import get_charset_files
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_io.result_object import decoded, encoded
from dicom_io.segmentation import build_segmentation
from dicom_io.source_attributes import (
    IDENTIFYING,
    REQUIRED_IF_VALID,
    inherited_attributes,
    local_time,
    patient_orientation,
    source_skeleton,
    specific_character_set,
)
from tests.dicom_io.sources import SOURCES, findings_in, given, radiograph, with_raw_name

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)

NAMES = [
    ("ISO_IR 100", "Müller^Jürgen"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("ISO_IR 192", "王^小東=王^小東"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("GBK", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
]


def name_bytes(dataset):
    """The patient's name as it stands in the file, without padding and empty last components."""
    return dcmread(BytesIO(encoded(dataset)))._dict[0x00100010].value.rstrip(b" =")


@pytest.mark.parametrize(("character_set", "name"), NAMES, ids=[str(row[0]) for row in NAMES])
def test_names_come_out_readable_and_in_the_bytes_of_the_source(character_set, name):
    source = radiograph(
        given(SpecificCharacterSet=character_set, PatientName=name, Manufacturer="Example")
    )
    in_source = name_bytes(source)
    result = build_segmentation(source, findings_in(source), CREATED)
    assert name_bytes(result) == in_source
    read = decoded(encoded(result))
    assert str(read.PatientName).rstrip("=") == name.rstrip("=")
    assert read.SpecificCharacterSet == (source.SpecificCharacterSet)


@pytest.mark.parametrize(
    "path",
    [path for path in get_charset_files("*.dcm") if "SQEncoding" not in path],
    ids=lambda path: Path(path).stem,
)
def test_names_of_the_standards_own_examples_come_out_as_they_went_in(path):
    example = dcmread(path)
    raw_name = example._dict[0x00100010].value
    source = with_raw_name(raw_name, example.SpecificCharacterSet)
    result = build_segmentation(source, findings_in(source), CREATED)
    assert decoded(encoded(result)).PatientName == example.PatientName
    assert name_bytes(result) == name_bytes(source)


def test_a_simplified_chinese_name_with_code_extensions_keeps_its_escapes():
    raw_name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="  # PS3.5 K.2
    source = with_raw_name(raw_name, ["", "ISO 2022 IR 58"])
    result = build_segmentation(source, findings_in(source), CREATED)
    assert name_bytes(result) == raw_name.rstrip(b"=")


@pytest.mark.parametrize(
    ("raw_name", "name"),
    [
        (b"=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "=山田^太郎"),
        (b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (b"^^", "^^"),
    ],
)
def test_a_set_of_two_bytes_that_is_named_alone_extends_ascii(raw_name, name):
    source = with_raw_name(raw_name, "ISO 2022 IR 87")
    result = build_segmentation(source, findings_in(source), CREATED)
    assert decoded(encoded(result)).PatientName == name
    assert name_bytes(result) == raw_name


def test_a_name_in_no_declared_character_set_keeps_its_bytes():
    source = with_raw_name(b"M\xfcller", None)
    result = build_segmentation(source, findings_in(source), CREATED)
    assert name_bytes(result) == b"M\xfcller"
    assert "SpecificCharacterSet" not in result


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ("ISO_IR 100", ["ISO_IR 100"]),
        ("ISO-IR 100", ["ISO_IR 100"]),
        ("iso_ir_100", ["ISO_IR 100"]),
        ("UTF-8", ["ISO_IR 192"]),
        ("ISO 2022 IR 100", ["ISO_IR 100"]),
        ("ISO_IR 6", []),
        ("", []),
        (["", "ISO 2022 IR 87"], ["", "ISO 2022 IR 87"]),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], ["ISO 2022 IR 6", "ISO 2022 IR 149"]),
        (["ISO_IR 100", ""], ["ISO_IR 100"]),
        ("ISO 2022 IR 87", ["", "ISO 2022 IR 87"]),
    ],
)
def test_character_sets_are_named_by_their_defined_terms(stated, meant):
    dataset = Dataset()
    dataset.SpecificCharacterSet = stated
    assert specific_character_set(dataset) == meant


def test_what_identifies_patient_and_study_is_copied_value_for_value():
    source = radiograph(given(PatientID="x" * 70, TimezoneOffsetFromUTC="+0900"))
    inherited = inherited_attributes(source)
    for keyword in (*IDENTIFYING, *REQUIRED_IF_VALID, "StudyInstanceUID", "IssuerOfPatientID"):
        assert inherited[keyword].value == source[keyword].value, keyword
    assert inherited.TimezoneOffsetFromUTC == "+0900"
    assert inherited.StudyDescription == source.StudyDescription


def stored_as(keyword, vr, value):
    """The attribute stands in the file under this value representation."""

    def change(dataset):
        dataset[keyword] = DataElement(tag_for_keyword(keyword), vr, value)

    return change


@pytest.mark.parametrize("vr", ["LO", "SH", "ST", "UT", "PN", "CS", "UN"])
@pytest.mark.parametrize("keyword", IDENTIFYING)
def test_what_identifies_is_copied_also_from_under_another_text_representation(keyword, vr):
    text = "Müller^Jürgen" if vr not in ("CS", "UN") else "007"
    source = radiograph(stored_as(keyword, vr, b"007" if vr == "UN" else text))
    result = build_segmentation(source, findings_in(source), CREATED)
    read = decoded(encoded(result))[keyword]
    assert (read.VR, str(read.value)) == (dictionary_VR(keyword), text)


@pytest.mark.parametrize("vr", ["IS", "DS"])
def test_a_patient_id_under_a_representation_of_numbers_keeps_its_zeros(vr):
    source = radiograph(stored_as("PatientID", vr, "0004711"))
    assert inherited_attributes(source).PatientID == "0004711"


def test_several_values_under_another_text_representation_stay_several():
    source = radiograph(stored_as("PatientID", "SH", ["47", "11"]))
    assert inherited_attributes(source).PatientID == ["47", "11"]


@pytest.mark.parametrize(
    ("vr", "value"), [("OB", b"4711"), ("US", 4711), ("SQ", Sequence([Dataset()]))]
)
def test_what_is_no_text_identifies_nobody(vr, value):
    source = radiograph(stored_as("PatientID", vr, value))
    assert inherited_attributes(source)["PatientID"].is_empty


@pytest.mark.parametrize("name", ["missing type 2", "empty type 2"])
def test_an_empty_type_2_stays_empty_and_nothing_is_invented(name):
    inherited = inherited_attributes(SOURCES[name]())
    for keyword in (*IDENTIFYING, *REQUIRED_IF_VALID):
        assert inherited[keyword].is_empty, keyword


def test_values_that_break_their_rules_are_mended_where_the_rule_says_how_else_left_out():
    inherited = inherited_attributes(SOURCES["values that break their rules"]())
    assert inherited.StudyDate == "20261120"
    assert inherited.StudyTime == "081500"
    assert inherited["PatientSex"].is_empty
    assert "PatientAge" not in inherited
    assert "ProcedureCodeSequence" not in inherited


@pytest.mark.parametrize("date", ["20261340", "yesterday", "2026-11-20"])
def test_a_date_that_does_not_exist_is_left_empty(date):
    assert inherited_attributes(radiograph(given(StudyDate=date)))["StudyDate"].is_empty


def test_complete_sequences_are_copied_without_private_data():
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    issuer.private_block(0x0009, "X", create=True).add_new(1, "LO", "secret")
    inherited = inherited_attributes(radiograph(given(IssuerOfAccessionNumberSequence=[issuer])))
    [item] = inherited.IssuerOfAccessionNumberSequence
    assert item.LocalNamespaceEntityID == "RIS"
    assert len(item) == 1


def test_no_private_element_is_copied():
    assert not [e for e in inherited_attributes(SOURCES["private tags"]()) if e.tag.is_private]


def test_the_skeleton_holds_no_patient_data():
    skeleton = source_skeleton(radiograph())
    assert all(skeleton[keyword].is_empty for keyword in (*IDENTIFYING, *REQUIRED_IF_VALID))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["L", "F"], ["L", "F"]),
        (["LH", "FL"], ["LH", "FL"]),
        (["L"], []),
        (["L", ""], []),
        (["L", "Q"], []),
        ("", []),
        (None, []),
    ],
)
def test_patient_orientation_is_taken_only_whole(value, expected):
    dataset = Dataset()
    dataset.PatientOrientation = value
    assert patient_orientation(dataset) == expected


@pytest.fixture
def in_tokyo(monkeypatch):
    """The node's clock is set to Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("offset", "hour"), [("+0900", 21), ("-0330", 8), (None, 21), ("nonsense", 21)]
)
def test_creation_is_stated_in_the_sources_time_zone_or_else_in_the_nodes(in_tokyo, offset, hour):
    source = Dataset()
    if offset:
        source.TimezoneOffsetFromUTC = offset
    stated = local_time(CREATED, source)
    assert stated.hour == hour
    assert stated == CREATED


def test_without_a_time_zone_no_result_is_dated_before_its_study(in_tokyo):
    source = radiograph(given(StudyDate="20261121", StudyTime="071200"))
    read_at = datetime(2026, 11, 20, 22, 15, tzinfo=UTC)
    result = build_segmentation(source, findings_in(source), read_at)
    assert (result.ContentDate, result.ContentTime) == ("20261121", "071500")
    assert (result.InstanceCreationDate, result.InstanceCreationTime) == ("20261121", "071500")
