from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from dicom_io.colours import LEFT_LUNG_RGB, RIGHT_LUNG_RGB, blend_saliency
from dicom_io.findings import LungMasks
from dicom_io.legend import draw_legend, percent_text
from dicom_io.overlay import draw_overlay, drawing_size
from dicom_io.pixels import decode, display_image
from tests.dicom_io.sources import SOURCES, findings_in, given, radiograph

CREATED = datetime(2026, 11, 23, 12, 34, 56)


def drawn(source, findings=None):
    film_hw = display_image(decode(source))
    picture = draw_overlay(film_hw, findings or findings_in(source), source=source, created=CREATED)
    return np.asarray(picture).astype(int)


def near(picture, colour, tolerance=40):
    return np.abs(picture - np.array(colour)).max(axis=-1) <= tolerance


@pytest.mark.parametrize(
    ("rows", "columns", "aspect", "expected"),
    [
        (90, 80, 1.0, (1024, 910)),
        (5000, 4200, 1.0, (1536, 1290)),
        (1200, 1100, 1.0, (1200, 1100)),
        (1000, 1000, 2.0, (1536, 768)),
        (1000, 1200, 0.5, (500, 1200)),
        (64, 5000, 1.0, (20, 1536)),
    ],
)
def test_films_are_drawn_undistorted_at_a_legible_size(rows, columns, aspect, expected):
    assert drawing_size(rows, columns, aspect) == expected


def test_each_lung_is_outlined_in_its_colour_where_its_mask_ends():
    source = radiograph(rows=1024, columns=1024)
    findings = findings_in(source)
    film = drawn(source)[:1024, :1024]
    for mask_hw, colour in (
        (findings.lungs.right_hw, RIGHT_LUNG_RGB),
        (findings.lungs.left_hw, LEFT_LUNG_RGB),
    ):
        rows, columns = np.nonzero(mask_hw)
        middle = int(rows.mean())
        for edge in (columns[rows == middle].min(), columns[rows == middle].max()):
            assert near(film[middle, edge - 3 : edge + 4], colour).any()
        inside = film[
            middle, columns[rows == middle].min() + 12 : columns[rows == middle].max() - 12
        ]
        assert not near(inside, colour).any()


def test_the_mirrored_film_swaps_the_colours_of_the_lungs():
    standard, mirrored = (
        drawn(radiograph(given(PatientOrientation=[side, "F"]), rows=1024, columns=1024))
        for side in "LR"
    )
    assert near(standard[:1024, :500], RIGHT_LUNG_RGB).sum() > 500
    assert near(mirrored[:1024, :500], RIGHT_LUNG_RGB).sum() < 50
    assert near(mirrored[:1024, :500], LEFT_LUNG_RGB).sum() > 500


def test_the_film_is_untouched_where_nothing_was_found():
    source = radiograph(rows=1024, columns=1024)
    empty = np.zeros((1024, 1024), dtype=bool)
    findings = replace(
        findings_in(source),
        lungs=LungMasks(empty, empty, True, "none"),
        saliency_hw=np.zeros((1024, 1024), dtype=np.float32),
    )
    film = drawn(source, findings)[:1024, :1024]
    assert np.array_equal(film[..., 0], display_image(decode(source)))
    assert np.array_equal(film[..., 0], film[..., 2])


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_drawn_with_the_legend_beside_the_film(name):
    source = SOURCES[name]()
    picture = drawn(source)
    height, width = 1024, 845  # 160 x 132, also where pixels are half as high and twice as many
    assert picture.shape[0] >= height
    assert width + 400 <= picture.shape[1] <= width + 450


def test_size_of_film_and_findings_must_agree():
    source = radiograph()
    with pytest.raises(ValueError, match="differ in size"):
        draw_overlay(
            np.zeros((64, 64), np.uint8), findings_in(source), source=source, created=CREATED
        )


def test_covered_film_grows_brighter_and_redder_with_saliency():
    film_hw = np.full((1, 6), 40, dtype=np.uint8)
    levels = np.linspace(0, 1, 6, dtype=np.float32)[np.newaxis]
    row = blend_saliency(film_hw, levels)[0]
    assert np.array_equal(row[0], [40, 40, 40])
    lightness = row @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness[1:]) > 0).all()
    assert row[3, 0] > row[3, 2]


def test_saliency_outside_its_range_is_clipped():
    film_hw = np.full((1, 2), 40, dtype=np.uint8)
    wild = np.array([[-5.0, 7.0]], dtype=np.float32)
    tame = np.array([[0.0, 1.0]], dtype=np.float32)
    assert np.array_equal(blend_saliency(film_hw, wild), blend_saliency(film_hw, tame))


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.0, "<1"), (0.004, "<1"), (0.01, "1"), (0.874, "87"), (0.99, "99"), (0.997, ">99")],
)
def test_no_rounding_turns_a_doubt_into_certainty(probability, text):
    assert percent_text(probability) == text


def legend_of(source, **changes):
    findings = replace(findings_in(source), **changes)
    return np.asarray(draw_legend(findings, source, CREATED, 22))


@pytest.mark.parametrize(
    "changes",
    [
        {"probability": 0.5},
        {"operating_point": 0.6},
        {"gate_score": 0.4, "gate_threshold": 1.7},
        {"model": replace(findings_in(radiograph()).model, version="0.2.0")},
        {"model": replace(findings_in(radiograph()).model, sha256="f" * 64)},
    ],
)
def test_the_legend_shows_every_figure(changes):
    plain, changed = legend_of(radiograph()), legend_of(radiograph(), **changes)
    assert plain.shape != changed.shape or (plain != changed).any()


def test_the_legend_warns_of_uncertain_sides():
    amber = (255, 196, 84)
    certain = legend_of(radiograph())
    uncertain = legend_of(radiograph(given(PatientOrientation="")))
    assert near(uncertain, amber).sum() > 1.5 * near(certain, amber).sum()


def test_long_words_never_leave_the_panel():
    model = replace(findings_in(radiograph()).model, name="W" * 200, version="v" * 200)
    legend = legend_of(radiograph(), model=model)
    assert (legend[:, -10:] == legend[0, 0]).all()
