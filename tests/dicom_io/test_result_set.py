from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io.errors import SettingsError
from dicom_io.pixels import decode, display_image
from dicom_io.result_set import PROFILE_NAMES, build_result_set, deliverable, profile
from dicom_io.uids import STORAGE_CLASSES, ResultKind
from tests.dicom_io.sources import findings_in, radiograph

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
KINDS = st.sets(st.sampled_from(ResultKind), min_size=1)


def build(kinds):
    source = radiograph()
    film_hw = display_image(decode(source))
    return build_result_set(source, film_hw, findings_in(source), CREATED, kinds)


def test_each_kind_is_an_object_of_its_class_in_a_series_of_its_own():
    built = build(set(ResultKind))
    assert set(built) == set(ResultKind)
    for kind, result in built.items():
        assert result.SOPClassUID == STORAGE_CLASSES[kind]
    assert len({result.SeriesInstanceUID for result in built.values()}) == len(built)
    assert len({result.SeriesNumber for result in built.values()}) == len(built)
    assert {result.ContentQualification for result in built.values()} == {"RESEARCH"}


def test_report_and_secondary_capture_name_each_other_and_the_segmentation():
    built = build({ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE, ResultKind.REPORT})
    segmentation = built[ResultKind.SEGMENTATION]
    capture, report = built[ResultKind.SECONDARY_CAPTURE], built[ResultKind.REPORT]
    [image] = capture.ReferencedImageSequence
    assert image.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    [document] = capture.ReferencedInstanceSequence
    assert document.ReferencedSOPInstanceUID == report.SOPInstanceUID
    evidence = str(report.CurrentRequestedProcedureEvidenceSequence)
    assert segmentation.SOPInstanceUID in evidence
    assert capture.SOPInstanceUID in evidence


def test_nothing_is_named_that_is_not_made():
    capture = build({ResultKind.SECONDARY_CAPTURE})[ResultKind.SECONDARY_CAPTURE]
    assert "ReferencedImageSequence" not in capture
    assert "ReferencedInstanceSequence" not in capture


@given(KINDS)
def test_a_target_that_takes_everything_gets_its_profile(wanted):
    assert deliverable(wanted, STORAGE_CLASSES.values()) == wanted


@given(KINDS, st.sets(st.sampled_from(list(STORAGE_CLASSES.values()))))
def test_a_target_gets_only_what_it_accepts(wanted, accepted):
    chosen = deliverable(wanted, accepted)
    assert {STORAGE_CLASSES[kind] for kind in chosen} <= accepted
    assert wanted & {kind for kind in ResultKind if STORAGE_CLASSES[kind] in accepted} <= chosen


@pytest.mark.parametrize(
    ("wanted", "accepted", "chosen"),
    [
        ({"seg"}, {"gsps", "sc"}, {"gsps"}),
        ({"seg"}, {"sc"}, {"sc"}),
        ({"seg", "sr"}, {"sc"}, {"sc"}),
        ({"labelmap"}, {"seg"}, {"seg"}),
        ({"sc"}, {"seg"}, set()),
        ({"seg"}, set(), set()),
    ],
)
def test_what_a_target_refuses_is_replaced_by_what_it_takes(wanted, accepted, chosen):
    classes = {STORAGE_CLASSES[PROFILE_NAMES[name]] for name in accepted}
    expected = {PROFILE_NAMES[name] for name in chosen}
    assert deliverable(profile(wanted), classes) == expected


@pytest.mark.parametrize("names", [[], ["seg", "pdf"]])
def test_a_profile_of_nothing_or_of_unknown_names_is_refused(names):
    with pytest.raises(SettingsError, match="seg, labelmap, sc, gsps, sr"):
        profile(names)
