from datetime import UTC, datetime

import numpy as np
import pytest

from dicom_io.overlay import draw_overlay
from dicom_io.pixels import decode, display_image
from dicom_io.result_object import decoded, encoded
from dicom_io.secondary_capture import build_secondary_capture
from tests.dicom_io.sources import SOURCES, findings_in, given, radiograph, without

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def capture_of(source):
    film_hw = display_image(decode(source))
    result = build_secondary_capture(source, film_hw, findings_in(source), CREATED)
    return decoded(encoded(result))


def test_the_pixels_are_the_picture():
    source = radiograph()
    picture = draw_overlay(
        display_image(decode(source)), findings_in(source), source=source, created=CREATED
    )
    capture = capture_of(source)
    assert capture.PhotometricInterpretation == "RGB"
    assert np.array_equal(capture.pixel_array, np.asarray(picture))


def test_it_says_how_it_was_made_of_what():
    capture = capture_of(radiograph())
    assert capture.ConversionType == "WSD"
    assert capture.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert "MultiMix 0.1.0" in capture.DerivationDescription
    assert capture.DerivationCodeSequence[0].CodeValue == "113085"
    [image] = capture.SourceImageSequence
    assert image.SpatialLocationsPreserved == "NO"
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_it_has_no_pixel_spacing_since_the_legend_has_no_place_in_the_patient():
    assert "PixelSpacing" not in capture_of(radiograph())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (given(BurnedInAnnotation="NO"), "NO"),
        (given(BurnedInAnnotation="YES"), "YES"),
        (given(BurnedInAnnotation="MAYBE"), "YES"),
        (without("BurnedInAnnotation"), "YES"),
    ],
)
def test_burned_in_annotation_is_expected_unless_the_source_denies_it(change, expected):
    assert capture_of(radiograph(change)).BurnedInAnnotation == expected


def test_lossy_compression_of_the_source_is_still_stated():
    capture = capture_of(SOURCES["lossy"]())
    assert capture.LossyImageCompression == "01"
    assert capture.LossyImageCompressionMethod == "ISO_10918_1"
    assert capture_of(radiograph()).LossyImageCompression == "00"


def test_orientation_is_the_sources_or_empty():
    assert capture_of(radiograph()).PatientOrientation == ["L", "F"]
    assert not capture_of(radiograph(without("PatientOrientation"))).PatientOrientation
