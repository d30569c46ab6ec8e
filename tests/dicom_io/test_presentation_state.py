from copy import deepcopy
from datetime import UTC, datetime

import numpy as np
import pytest

from dicom_io.presentation_state import build_presentation_state
from dicom_io.result_object import decoded, encoded
from tests.dicom_io.sources import SOURCES, findings_in, given, radiograph, without
from tests.dicom_io.test_contours import filled

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def state_of(source, **options):
    result = build_presentation_state(source, findings_in(source, **options), CREATED)
    return decoded(encoded(result))


def lung_of(state, layer):
    [annotation] = [item for item in state.GraphicAnnotationSequence if item.GraphicLayer == layer]
    return annotation


def test_the_outlines_lie_on_the_lungs():
    source = radiograph(rows=400, columns=330)
    lungs = findings_in(source).lungs
    state = state_of(source)
    for layer, mask_hw in (("RIGHT_LUNG", lungs.right_hw), ("LEFT_LUNG", lungs.left_hw)):
        polygons = []
        for graphic in lung_of(state, layer).GraphicObjectSequence:
            assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
            polygons.append(np.reshape(graphic.GraphicData, (-1, 2)))
            assert len(polygons[-1]) == graphic.NumberOfGraphicPoints
        drawn_hw = filled(polygons, 400, 330)
        assert 2 * (drawn_hw & mask_hw).sum() / (drawn_hw.sum() + mask_hw.sum()) > 0.99


def test_letters_say_when_the_side_is_assumed():
    certain, assumed = state_of(radiograph()), state_of(radiograph(given(PatientOrientation="")))
    for state, letters in ((certain, ("R", "L")), (assumed, ("R?", "L?"))):
        for layer, letter in zip(("RIGHT_LUNG", "LEFT_LUNG"), letters, strict=True):
            assert lung_of(state, layer).TextObjectSequence[0].UnformattedTextValue == letter


@pytest.mark.parametrize(("probability", "answer"), [(0.87, "suggested"), (0.1, "not suggested")])
def test_the_summary_says_what_the_overlay_says(probability, answer):
    state = state_of(radiograph(), probability=probability)
    text = lung_of(state, "SUMMARY").TextObjectSequence[0].UnformattedTextValue
    assert f"Pneumonia: {answer}, probability {100 * probability:.0f} %" in text
    assert "Research use only. Not for diagnosis." in text


def test_it_refers_to_the_source_and_to_nothing_else():
    source = radiograph()
    state = state_of(source)
    [series] = state.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    [image] = series.ReferencedImageSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    for annotation in state.GraphicAnnotationSequence:
        [image] = annotation.ReferencedImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_the_whole_film_is_shown_undistorted():
    area = state_of(SOURCES["not square pixels"]()).DisplayedAreaSelectionSequence[0]
    assert area.DisplayedAreaTopLeftHandCorner == [1, 1]
    assert area.DisplayedAreaBottomRightHandCorner == [132, 320]
    assert area.PresentationPixelSpacing == [1.2, 2.4]
    area = state_of(
        radiograph(
            without("PixelSpacing", "ImagerPixelSpacing"), given(PixelAspectRatio=["2", "1"])
        )
    ).DisplayedAreaSelectionSequence[0]
    assert area.PresentationPixelAspectRatio == [2000, 1000]


def test_it_is_small():
    source = radiograph(rows=3000, columns=2500)
    assert len(encoded(build_presentation_state(source, findings_in(source), CREATED))) < 20_000


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("dx 12 bit", "IDENTITY"),
        ("monochrome1 14 bit", "INVERSE"),
    ],
)
def test_a_negative_is_shown_as_the_source_shows_it(name, shape):
    assert state_of(SOURCES[name]()).PresentationLUTShape == shape


def test_the_first_window_and_the_rescaling_are_the_sources():
    state = state_of(SOURCES["several windows"]())
    [voi] = state.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (2000, 3800)
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (1, 0, "US")


def test_tables_are_taken_over_with_entries_of_16_bits():
    [voi] = state_of(SOURCES["voi lut"]()).SoftcopyVOILUTSequence
    [table] = voi.VOILUTSequence
    assert list(table.LUTDescriptor) == [4096, 0, 16]
    entries = np.frombuffer(table.LUTData, "<u2")
    assert (entries[0], entries[-1]) == (0, 0xFFFF)
    [table] = state_of(SOURCES["modality lut"]()).ModalityLUTSequence
    assert table.ModalityLUTType == "US"


def test_entries_of_a_byte_each_are_taken_over_in_words_and_modality_values_stay_what_they_are():
    source = SOURCES["voi lut"]()
    [table] = source.VOILUTSequence
    table.LUTDescriptor = [4096, 0, 8]
    table.LUTData = (np.arange(4096) >> 4).astype("u1").tobytes()
    table["LUTData"].VR = "OW"
    modality = deepcopy(table)
    modality.ModalityLUTType = "US"
    source.ModalityLUTSequence = [modality]
    state = state_of(source)
    [found] = state.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert list(found.LUTDescriptor) == [4096, 0, 16]
    entries_n = np.frombuffer(found.LUTData, "<u2")
    assert (entries_n == (np.arange(4096) >> 4) * 257).all()
    [found] = state.ModalityLUTSequence
    assert (np.frombuffer(found.LUTData, "<u2") == np.arange(4096) >> 4).all()


def test_a_slope_of_nothing_is_left_out_as_the_pixels_are_read_without_it():
    source = radiograph(given(RescaleSlope="0"))
    assert "RescaleSlope" not in state_of(source)


@pytest.mark.parametrize("width", ["0", "-5", "", None, "wide"])
def test_a_window_that_is_none_is_left_out(width):
    source = radiograph(given(WindowCenter="100"))
    source.add_new(0x00281051, "LO", width)
    assert "SoftcopyVOILUTSequence" not in state_of(source)


def test_a_lung_that_was_not_found_has_no_outline():
    source = radiograph()
    findings = findings_in(source)
    findings.lungs.right_hw[:] = False
    state = build_presentation_state(source, findings, CREATED)
    assert [item.GraphicLayer for item in state.GraphicLayerSequence] == ["LEFT_LUNG", "SUMMARY"]


def test_text_and_lines_have_a_dark_rim_so_that_a_light_film_does_not_swallow_them():
    for annotation in state_of(radiograph()).GraphicAnnotationSequence:
        texts = annotation.TextObjectSequence
        lines = annotation.get("GraphicObjectSequence", [])
        styles = [t.TextStyleSequence for t in texts] + [g.LineStyleSequence for g in lines]
        for [style] in styles:
            assert style.ShadowStyle == "OUTLINED"
            assert style.ShadowColorCIELabValue[0] == 0, "black"


def test_the_outline_of_a_thumbnail_follows_its_pixels():
    source = radiograph(rows=72, columns=64)
    mask_hw = findings_in(source).lungs.right_hw
    [graphic] = lung_of(state_of(source), "RIGHT_LUNG").GraphicObjectSequence
    drawn_hw = filled([np.reshape(graphic.GraphicData, (-1, 2))], 72, 64)
    assert np.array_equal(drawn_hw, mask_hw)
