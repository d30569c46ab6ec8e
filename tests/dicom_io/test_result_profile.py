"""A profile is written in names and read back; every kind but one has a stand-in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io.errors import SettingsError
from dicom_io.result_profile import profile, profile_text, substitutes_of, with_substitutes
from dicom_io.uids import ResultKind

KINDS = st.frozensets(st.sampled_from(ResultKind), min_size=1)


@given(KINDS)
def test_a_profile_reads_as_it_was_written(kinds):
    assert profile(profile_text(kinds).split("+")) == kinds


@pytest.mark.parametrize("names", [[], ["seg", "pdf"], ["seg", ""]])
def test_a_profile_of_nothing_or_of_unknown_names_is_refused(names):
    with pytest.raises(SettingsError, match="seg, labelmap, sc, gsps, sr"):
        profile(names)


def test_a_segmentation_is_stood_in_for_by_contours_and_those_by_a_picture():
    assert substitutes_of(ResultKind.LABEL_MAP_SEGMENTATION) == (
        ResultKind.SEGMENTATION,
        ResultKind.PRESENTATION_STATE,
        ResultKind.SECONDARY_CAPTURE,
    )
    assert substitutes_of(ResultKind.REPORT) == (ResultKind.SECONDARY_CAPTURE,)
    assert substitutes_of(ResultKind.SECONDARY_CAPTURE) == ()


@given(KINDS)
def test_everything_that_may_stand_in_is_among_the_kinds_with_their_substitutes(kinds):
    complete = with_substitutes(kinds)
    assert kinds <= complete
    assert ResultKind.SECONDARY_CAPTURE in complete
    assert with_substitutes(complete) == complete
