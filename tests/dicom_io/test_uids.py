import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io.uids import (
    IMPLEMENTATION_CLASS_UID,
    ResultKind,
    derived_uid,
    result_series_uid,
    result_uid,
    tracking_uid,
)


def test_the_same_work_gives_the_same_uid_in_every_version_of_this_code():
    # Written down: a change would double every result in every archive.
    assert result_uid("1.2.3", "0.1.0", ResultKind.SEGMENTATION) == (
        "2.25.33256757357659924327789800946911866994"
    )
    assert IMPLEMENTATION_CLASS_UID == "2.25.216046590339571214372761112679023556531"


@given(st.lists(st.text(max_size=80), max_size=4))
def test_every_derived_uid_is_a_valid_uuid_uid(names):
    uid = derived_uid(*names)
    assert uid.is_valid
    assert re.fullmatch(r"2\.25\.[1-9]\d*", uid)
    assert len(uid) <= 64
    bits = int(uid.removeprefix("2.25."))
    assert bits >> 76 & 0xF == 8
    assert bits >> 62 & 0b11 == 0b10


def test_where_one_name_ends_and_the_next_begins_matters():
    assert derived_uid("ab", "c") != derived_uid("a", "bc") != derived_uid("abc")


@pytest.mark.parametrize("other", [kind for kind in ResultKind if kind is not ResultKind.REPORT])
def test_kinds_source_and_model_version_each_change_both_uids(other):
    uid = result_uid("1.2.3", "1", ResultKind.REPORT)
    series = result_series_uid("1.2.3", "1", ResultKind.REPORT)
    assert uid != series
    assert uid not in {
        result_uid("1.2.3", "1", other),
        result_uid("1.2.3", "2", ResultKind.REPORT),
        result_uid("1.2.4", "1", ResultKind.REPORT),
    }
    assert series not in {
        result_series_uid("1.2.3", "1", other),
        result_series_uid("1.2.3", "2", ResultKind.REPORT),
        result_series_uid("1.2.4", "1", ResultKind.REPORT),
    }


def test_both_lungs_of_a_film_are_tracked_apart():
    assert tracking_uid("1.2.3", "right lung") != tracking_uid("1.2.3", "left lung")
