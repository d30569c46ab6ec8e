import re
from datetime import UTC, datetime

import pytest

from dicom_io.findings import ModelIdentity
from dicom_io.pixels import decode, display_image
from dicom_io.presentation_state import build_presentation_state
from dicom_io.report import build_report
from dicom_io.result_object import decoded, encoded, plain_text, series_description
from dicom_io.secondary_capture import build_secondary_capture
from dicom_io.segmentation import build_segmentation
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, MANUFACTURER, ResultKind
from tests.dicom_io.sources import SOURCES, findings_in, radiograph

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def build(kind, source, created=CREATED, **options):
    findings = options.pop("findings", None) or findings_in(source)
    if kind is ResultKind.SECONDARY_CAPTURE:
        film_hw = display_image(decode(source))
        return build_secondary_capture(source, film_hw, findings, created, **options)
    if kind is ResultKind.PRESENTATION_STATE:
        return build_presentation_state(source, findings, created, **options)
    if kind is ResultKind.REPORT:
        return build_report(source, findings, created, **options)
    label_map = kind is ResultKind.LABEL_MAP_SEGMENTATION
    return build_segmentation(source, findings, created, label_map=label_map, **options)


@pytest.fixture(params=ResultKind, ids=lambda kind: kind.value)
def kind(request):
    return request.param


def test_the_same_source_and_model_give_byte_identical_objects(kind):
    assert encoded(build(kind, radiograph())) == encoded(build(kind, radiograph()))


def test_only_times_differ_between_objects_made_at_different_times(kind):
    early, late = (
        decoded(encoded(build(kind, radiograph(), datetime(2026, 11, day)))) for day in (23, 24)
    )
    for result in (early, late):
        for element in list(result):
            if re.search("(Creation|Content|SecondaryCapture)(Date|Time)$", element.keyword) or (
                re.match("(Date|Time)Of", element.keyword)
            ):
                del result[element.tag]
        if kind is ResultKind.SECONDARY_CAPTURE:
            result.PixelData = b""  # the time of creation is drawn
    assert early == late


def test_a_new_model_version_gives_new_uids_and_a_series_that_says_so(kind):
    source = radiograph()
    old = build(kind, source)
    model = ModelIdentity("MultiMix", "0.2.0", "cc" * 32)
    new = build(kind, source, findings=findings_in(source, model=model), replaces_version="0.1.0")
    assert new.SOPInstanceUID != old.SOPInstanceUID
    assert new.SeriesInstanceUID != old.SeriesInstanceUID
    assert "0.2.0" in new.SeriesDescription
    assert "replaces 0.1.0" in new.SeriesDescription


def test_every_object_names_its_maker_its_model_and_its_status(kind):
    result = decoded(encoded(build(kind, radiograph())))
    assert result.Manufacturer == MANUFACTURER
    assert result.SoftwareVersions == "MultiMix 0.1.0"
    assert result.ContentQualification == "RESEARCH"
    assert "research use only" in result.SeriesDescription
    assert result.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert result.ContributingEquipmentSequence[0].Manufacturer == "Example Röntgen"


def test_every_object_lies_in_the_study_of_its_source(kind):
    source = radiograph()
    result = build(kind, source)
    assert result.StudyInstanceUID == source.StudyInstanceUID
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert result.PatientID == source.PatientID
    assert result.InstanceNumber == source.InstanceNumber
    assert str(source.SOPInstanceUID) in str(result)


def test_building_leaves_the_source_as_it_was(kind):
    source, untouched = radiograph(), radiograph()
    build(kind, source)
    assert source == untouched


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_every_kind_of_object(kind, name):
    source = SOURCES[name]()
    result = decoded(encoded(build(kind, source)))
    assert result.StudyInstanceUID == source.StudyInstanceUID


@pytest.mark.parametrize("replaces", [None, "2026.10.1"])
@pytest.mark.parametrize("version", ["1", "2026.11.23+build.7f3a", "v" * 80, "1\\2\n\u00e9"])
def test_series_descriptions_fit_and_are_plain(version, replaces):
    model = ModelIdentity("MultiMix", version, "00" * 32)
    for kind in ResultKind:
        text = series_description(model, kind, replaces)
        assert 1 <= len(text) <= 64
        assert plain_text(text) == text
        assert text.isascii()
        assert "\\" not in text
