import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from dicom_io.colours import LEFT_LUNG_RGB, RIGHT_LUNG_RGB
from dicom_io.errors import ArchiveError
from dicom_io.pixels import decode, display_image
from dicom_io.render import PANEL_HEIGHT, arrange, read_objects, render, source_beside
from dicom_io.result_object import encoded
from dicom_io.result_set import build_result_set
from dicom_io.uids import ResultKind
from tests.dicom_io.sources import findings_in, radiograph

CREATED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def study(tmp_path):
    """A folder with a radiograph and every kind of result, by kind."""
    folder = tmp_path / "study"
    folder.mkdir()
    source = radiograph(rows=512, columns=448)
    source.save_as(folder / "radiograph.dcm")
    film_hw = display_image(decode(source))
    built = build_result_set(source, film_hw, findings_in(source), CREATED, set(ResultKind))
    for kind, result in built.items():
        (folder / f"{kind.value}.dcm").write_bytes(encoded(result))
    (folder / "notes.txt").write_text("no DICOM")
    return folder


def near(picture, colour):
    return np.abs(np.asarray(picture).astype(int) - np.array(colour)).max(axis=-1) <= 45


@pytest.mark.parametrize("kind", ["segmentation", "label map segmentation", "presentation state"])
def test_outlines_are_drawn_where_the_lungs_are(study, kind):
    picture = render([study / f"{kind}.dcm", study / "radiograph.dcm"])
    assert picture.size == (896, PANEL_HEIGHT)
    lungs = findings_in(radiograph(rows=512, columns=448)).lungs
    for mask_hw, colour in ((lungs.right_hw, RIGHT_LUNG_RGB), (lungs.left_hw, LEFT_LUNG_RGB)):
        rows, columns = np.nonzero(mask_hw)
        middle = int(rows.mean())
        edge = columns[rows == middle].min()
        around = picture.crop((2 * edge - 5, 2 * middle - 5, 2 * edge + 6, 2 * middle + 6))
        assert near(around, colour).any()
        assert not near(picture.crop((0, 0, 60, PANEL_HEIGHT)), colour).any()


def test_a_result_finds_the_radiograph_that_lies_beside_it(study):
    assert source_beside(study / "segmentation.dcm") == study / "radiograph.dcm"
    assert source_beside(study / "radiograph.dcm") is None
    (study / "radiograph.dcm").unlink()
    assert source_beside(study / "segmentation.dcm") is None


@pytest.mark.parametrize("kind", [kind.value for kind in ResultKind])
def test_every_result_is_drawn_without_its_radiograph(study, kind):
    picture = np.asarray(render([study / f"{kind}.dcm"]))
    assert picture.shape[0] == PANEL_HEIGHT
    assert picture.std() > 3


def test_the_pixels_of_a_secondary_capture_are_shown_as_they_are(study):
    shown = render([study / "secondary capture.dcm"])
    capture = read_objects([study / "secondary capture.dcm"])[0]
    assert shown.height == capture.Rows == PANEL_HEIGHT
    assert np.array_equal(np.asarray(shown), capture.pixel_array)


def test_a_study_is_one_row_with_everything_that_refers_to_the_radiograph(study):
    [row] = arrange(read_objects([study]))
    assert row.source is not None
    assert len(row.results) == len(ResultKind)
    film, capture = 896, read_objects([study / "secondary capture.dcm"])[0].Columns
    assert render([study]).width > 3 * film + capture


def test_results_of_another_radiograph_get_a_row_of_their_own(study):
    other = radiograph(uid="1.2.826.0.1.3680043.8.498.77", rows=512, columns=448)
    other.save_as(study / "other.dcm")
    rows = arrange(read_objects([study]))
    assert sorted(len(row.results) for row in rows) == [0, len(ResultKind)]
    assert render([study]).height == 2 * PANEL_HEIGHT


def test_a_damaged_radiograph_still_shows_its_results(study):
    content = (study / "radiograph.dcm").read_bytes()
    (study / "radiograph.dcm").write_bytes(content[:-2000])
    assert near(render([study]), RIGHT_LUNG_RGB).any()


def test_nothing_to_draw_is_an_error_that_names_the_path(tmp_path):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(ArchiveError, match="nothing to draw in"):
        render([tmp_path])
    with pytest.raises(ArchiveError, match="does not exist"):
        render([tmp_path / "missing"])


def test_the_command_writes_the_picture_and_says_where(study, tmp_path):
    out = tmp_path / "new" / "study.png"
    command = [sys.executable, "-m", "dicom_io.render"]
    done = subprocess.run(
        [*command, study / "segmentation.dcm", out], capture_output=True, text=True, check=True
    )
    assert str(out) in done.stdout
    assert Image.open(out).size == (896, PANEL_HEIGHT)
    failed = subprocess.run([*command, tmp_path / "missing", out], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "does not exist" in failed.stderr
