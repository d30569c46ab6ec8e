"""Whatever bytes stand in a source's attributes, its result is built and can be read."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import STR_VR

from dicom_io.part10 import encode_dataset
from dicom_io.report_codes import PLAIN_CHEST_RADIOGRAPH
from dicom_io.result_object import decoded, encoded
from dicom_io.result_set import build_result_set
from dicom_io.source_attributes import (
    IDENTIFYING,
    OPTIONAL,
    REQUIRED_IF_VALID,
    inherited_attributes,
)
from dicom_io.uids import ResultKind
from tests.dicom_io.sources import findings_in, radiograph
from tests.dicom_io.sources import given as with_values

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
VECTOR_KINDS = {ResultKind.SEGMENTATION, ResultKind.PRESENTATION_STATE, ResultKind.REPORT}

ATTACKED = (
    *IDENTIFYING, *REQUIRED_IF_VALID, *OPTIONAL,
    "SpecificCharacterSet", "PatientOrientation", "ViewPosition", "InstanceNumber", "Modality",
    "PixelSpacing", "ImagerPixelSpacing", "PixelSpacingCalibrationType", "PixelAspectRatio",
    "Manufacturer", "SoftwareVersions", "StationName", "BurnedInAnnotation",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "VOILUTFunction", "PresentationLUTShape", "PositionReferenceIndicator",
)  # fmt: skip


def attacked(contents, vr=None):
    """A film with these bytes in its attributes, under ``vr`` or each under its own."""
    source = radiograph()
    pattern = source._dict[0x00100010]
    for keyword, content in contents.items():
        tag = tag_for_keyword(keyword)
        source._dict[tag] = pattern._replace(
            tag=tag, VR=vr or dictionary_VR(tag), value=content, length=len(content)
        )
    return source


LOOKALIKES = st.sampled_from(
    [
        b"", b"\\", b"\\\\\\", b"nan\\nan", b"inf\\inf", b"1e400\\1e400", b"0\\0", b"-1\\-1",
        b"1\\1\\1", b"99999999999999999999", b"L\\L", b"\xff\xfe\x00", b"\x1b$B\x1b$B", b"=" * 9,
        b"^" * 9, b"ISO 2022 IR 87\\ISO_IR 192", b"A" * 5000, b"\x00" * 64, b"+9999", b"00000000",
    ]
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(ATTACKED), LOOKALIKES | st.binary(max_size=40), min_size=1, max_size=4
    )
)
def test_no_attribute_can_stop_a_result(contents):
    source = attacked(contents)
    film_hw = np.zeros((source.Rows, source.Columns), np.uint8)
    built = build_result_set(source, film_hw, findings_in(source), CREATED, VECTOR_KINDS)
    for kind, result in built.items():
        read = decoded(encoded(result))
        assert read.SOPInstanceUID == result.SOPInstanceUID, kind
        assert read.StudyInstanceUID == source.StudyInstanceUID


@given(
    st.dictionaries(
        st.sampled_from(IDENTIFYING), LOOKALIKES | st.binary(max_size=40), min_size=1, max_size=3
    ),
    st.sampled_from(sorted(STR_VR)),
    st.sampled_from(["", "ISO_IR 100", "ISO_IR 192"]),
)
def test_no_text_under_another_representation_can_stop_a_result(contents, vr, character_set):
    source = attacked(contents, vr)
    source.SpecificCharacterSet = character_set
    assert encode_dataset(inherited_attributes(source), ExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("keyword", "content"),
    [
        ("TimezoneOffsetFromUTC", b"+9999"),
        ("TimezoneOffsetFromUTC", b"\\"),
        ("TimezoneOffsetFromUTC", b"+0100\\+0200"),
        ("SpecificCharacterSet", b"\x00\x01"),
        ("InstanceNumber", b"99999999999999999999"),
        ("ImagerPixelSpacing", b"inf\\inf"),
        ("PatientSex", b"\xff"),
    ],
)
def test_what_once_stopped_a_result_does_so_no_more(keyword, content):
    source = attacked({keyword: content})
    film_hw = np.zeros((source.Rows, source.Columns), np.uint8)
    built = build_result_set(source, film_hw, findings_in(source), CREATED, set(ResultKind))
    assert all(encoded(result) for result in built.values())


def procedure(**attributes):
    """The film's procedure, complete but for these attributes of its code."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "CXR", "99LOCAL"
    code.CodeMeaning = "Chest film"
    for keyword, value in attributes.items():
        setattr(code, keyword, value)
    return {"ProcedureCodeSequence": [code]}


@pytest.mark.parametrize(
    "attributes",
    [
        procedure(CodeMeaning="y" * 70),
        procedure(CodeMeaning=["Chest", "film"]),
        procedure(CodeValue="C" * 30),
        procedure(CodeValue=["A", "B"]),
        procedure(CodingSchemeDesignator="9" * 20),
        {"FrameOfReferenceUID": ["1.2", "1.3"]},
        {"FrameOfReferenceUID": "1." + "2" * 80},
    ],
    ids=[
        "long meaning", "two meanings", "long value", "two values", "long designator",
        "two frames of reference", "long frame of reference",
    ],
)  # fmt: skip
def test_neither_a_procedure_nor_a_frame_of_reference_can_stop_a_result(attributes):
    source = radiograph(with_values(**attributes))
    film_hw = np.zeros((source.Rows, source.Columns), np.uint8)
    built = build_result_set(source, film_hw, findings_in(source), CREATED, set(ResultKind))
    assert set(built) == set(ResultKind)
    for result in built.values():
        read = decoded(encoded(result))
        assert "FrameOfReferenceUID" not in read
    [named] = [
        item.ConceptCodeSequence[0].CodeMeaning
        for item in built[ResultKind.REPORT].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "121058"
    ]
    assert named == PLAIN_CHEST_RADIOGRAPH.meaning
