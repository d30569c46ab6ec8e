import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from scipy import ndimage

from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.laterality import require_lung_pair, split_lungs
from tests.dicom_io.sources import lungs_at

DATA = Path(__file__).parents[3] / "shared" / "data"


def oriented(*directions, **attributes):
    dataset = Dataset()
    if directions:
        dataset.PatientOrientation = list(directions)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def both():
    at_left, at_right = lungs_at(160, 132)
    return at_left | at_right


def test_standard_film_has_the_right_lung_at_the_left_of_the_image(both):
    at_left, at_right = lungs_at(160, 132)
    lungs = split_lungs(both, oriented("L", "F"))
    assert np.array_equal(lungs.right_hw, at_left)
    assert np.array_equal(lungs.left_hw, at_right)
    assert lungs.side_is_certain
    assert lungs.side_evidence == "Patient Orientation L/F"


def test_right_and_left_swap_under_a_flip_of_the_source_with_swapped_orientation(both):
    lungs = split_lungs(both, oriented("L", "F"))
    flipped = split_lungs(both[:, ::-1], oriented("R", "F"))
    assert np.array_equal(flipped.right_hw, lungs.right_hw[:, ::-1])
    assert np.array_equal(flipped.left_hw, lungs.left_hw[:, ::-1])
    assert flipped.side_is_certain


@pytest.mark.parametrize(
    ("turns", "orientation"), [(1, ("F", "R")), (2, ("R", "H")), (3, ("H", "L"))]
)
def test_a_rotated_film_keeps_its_sides(both, turns, orientation):
    lungs = split_lungs(both, oriented("L", "F"))
    rotated = split_lungs(np.rot90(both, turns), oriented(*orientation))
    assert np.array_equal(rotated.right_hw, np.rot90(lungs.right_hw, turns))
    assert np.array_equal(rotated.left_hw, np.rot90(lungs.left_hw, turns))
    assert rotated.side_is_certain


def test_oblique_directions_count_by_their_main_letter(both):
    assert split_lungs(both, oriented("LH", "FL")).side_is_certain


@pytest.mark.parametrize(
    "orientation", [(), ("",), ("L",), ("L", "R"), ("A", "F"), ("L", "F", "H"), ("X", "Y")]
)
def test_sides_are_uncertain_where_the_orientation_does_not_tell(both, orientation):
    lungs = split_lungs(both, oriented(*orientation, ViewPosition="PA"))
    assert not lungs.side_is_certain
    assert "assumed" in lungs.side_evidence
    assert "PA" in lungs.side_evidence
    assert np.array_equal(lungs.right_hw, lungs_at(160, 132)[0])


def test_specks_are_left_out_and_pieces_of_a_lung_kept(both):
    both[2:4, 2:4] = True
    both[70:72] = False  # a catheter cuts both lungs in two
    lungs = split_lungs(both, oriented("L", "F"))
    assert not lungs.right_hw[:6, :6].any()
    both[:6, :6] = False
    assert np.array_equal(lungs.right_hw | lungs.left_hw, both)
    assert np.array_equal(lungs.right_hw, both & lungs_at(160, 132)[0])


@pytest.mark.parametrize("bridge", [slice(70, 80), slice(40, 100)])
def test_two_lungs_that_touch_are_cut_between_them(both, bridge):
    at_left, at_right = lungs_at(160, 132)
    both[bridge, 40:90] = True
    lungs = split_lungs(both, oriented("L", "F"))
    assert not (lungs.right_hw & lungs.left_hw).any()
    assert np.array_equal(lungs.right_hw | lungs.left_hw, both)
    assert (lungs.right_hw & at_left).sum() >= 0.98 * at_left.sum()
    assert (lungs.left_hw & at_right).sum() >= 0.98 * at_right.sum()


def test_a_single_lung_leaves_the_other_mask_empty_and_its_side_uncertain():
    at_left, _ = lungs_at(160, 132)
    lungs = split_lungs(at_left, oriented("L", "F"))
    assert np.array_equal(lungs.right_hw, at_left)
    assert not lungs.left_hw.any()
    assert not lungs.side_is_certain
    assert "only one lung" in lungs.side_evidence


def chest(heart_at_right=True):
    """Film and mask of both lungs, the heart before the lung at the right or left of the image."""
    y, x = np.mgrid[:160, :132]
    at_left, at_right = lungs_at(160, 132)
    grey_hw = np.where(at_left | at_right, 0.3, 0.8) + 0.02 * np.sin(x)
    grey_hw[(((x - 82) / 22) ** 2 + ((y - 100) / 24) ** 2) < 1] = 0.8
    both_hw = at_left | at_right
    return (grey_hw, both_hw) if heart_at_right else (grey_hw[:, ::-1], both_hw[:, ::-1])


TURNS = [(0, "L", "F"), (1, "F", "R"), (2, "R", "H"), (3, "H", "L")]


@pytest.mark.parametrize(("turns", "rows", "columns"), TURNS)
def test_the_heart_on_the_left_leaves_the_stated_sides_certain(turns, rows, columns):
    grey_hw, both_hw = (np.rot90(image, turns) for image in chest())
    assert split_lungs(both_hw, oriented(rows, columns), grey_hw).side_is_certain


@pytest.mark.parametrize(("turns", "rows", "columns"), TURNS)
def test_a_mirrored_film_is_marked_uncertain_and_not_swapped(turns, rows, columns):
    grey_hw, both_hw = (np.rot90(image, turns) for image in chest(heart_at_right=False))
    stated = split_lungs(both_hw, oriented(rows, columns))
    lungs = split_lungs(both_hw, oriented(rows, columns), grey_hw)
    assert not lungs.side_is_certain
    assert "mirrored film or dextrocardia" in lungs.side_evidence
    assert np.array_equal(lungs.right_hw, stated.right_hw)


def test_a_mirrored_film_that_says_so_is_certain():
    grey_hw, both_hw = chest(heart_at_right=False)
    assert split_lungs(both_hw, oriented("R", "F"), grey_hw).side_is_certain


@pytest.mark.parametrize("dataset_name", ["chex", "cxr"])
def test_real_films_show_the_heart_on_their_left_and_their_mirror_images_do_not(dataset_name):
    manifest = DATA / dataset_name / "manifest.csv"
    if not manifest.exists():
        pytest.skip(f"{manifest} is not there")
    with manifest.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["lung_mask"]]
    alarms, caught = 0, 0
    sample = rows[:: max(1, len(rows) // 60)]
    for row in sample:
        film = Image.open(DATA / dataset_name / row["image"]).convert("L")
        mask = Image.open(DATA / dataset_name / row["lung_mask"]).convert("L").resize(film.size)
        grey_hw, mask_hw = np.asarray(film), np.asarray(mask) > 127
        stated = oriented("L", "F")
        alarms += not split_lungs(mask_hw, stated, grey_hw).side_is_certain
        caught += not split_lungs(mask_hw[:, ::-1], stated, grey_hw[:, ::-1]).side_is_certain
    assert alarms <= 0.05 * len(sample)
    assert caught >= 0.70 * len(sample)


def test_a_film_without_contrast_says_nothing_of_the_heart(both):
    assert split_lungs(both, oriented("L", "F"), np.zeros(both.shape)).side_is_certain


def test_an_empty_mask_gives_two_empty_lungs():
    lungs = split_lungs(np.zeros((64, 64), dtype=bool), oriented("L", "F"))
    assert not lungs.right_hw.any()
    assert not lungs.left_hw.any()


@pytest.mark.parametrize("turns", range(4))
def test_a_pair_of_lungs_is_accepted_in_any_quarter_turn(both, turns):
    require_lung_pair(np.rot90(both, turns))


def test_lungs_of_pixels_that_are_not_square_are_accepted(both):
    require_lung_pair(np.repeat(both, 2, axis=0), pixel_aspect=0.5)
    require_lung_pair(np.repeat(both, 2, axis=1), pixel_aspect=2.0)


@pytest.mark.parametrize(
    "mask_hw",
    [
        np.zeros((100, 100), dtype=bool),
        np.ones((100, 100), dtype=bool),
        np.pad(np.ones((60, 30), dtype=bool), ((20, 20), (5, 65))),
        np.pad(np.ones((8, 8), dtype=bool), ((46, 46), (46, 46))),
        np.pad(np.ones((50, 25), dtype=bool), ((20, 30), (5, 70)))
        | np.pad(np.ones((10, 10), dtype=bool), ((20, 70), (60, 30))),
    ],
    ids=["nothing", "everything", "one lung", "a speck", "one lung and a scrap"],
)
def test_what_is_no_pair_of_lungs_is_refused(mask_hw):
    with pytest.raises(ImageRejected) as refusal:
        require_lung_pair(mask_hw)
    assert refusal.value.reason is RejectionReason.NO_LUNGS


@pytest.mark.parametrize("dataset_name", ["chex", "cxr"])
def test_real_lung_masks_are_accepted_and_split_into_their_two_components(dataset_name):
    manifest = DATA / dataset_name / "manifest.csv"
    if not manifest.exists():
        pytest.skip(f"{manifest} is not there")
    with manifest.open() as lines:
        names = [row["lung_mask"] for row in csv.DictReader(lines) if row["lung_mask"]]
    whole = 0
    sample = names[:: max(1, len(names) // 60)]
    for name in sample:
        mask_hw = np.asarray(Image.open(DATA / dataset_name / name).convert("L")) > 127
        require_lung_pair(mask_hw)
        lungs = split_lungs(mask_hw, oriented("L", "F"))
        labels_hw, _ = ndimage.label(mask_hw)
        largest = np.argsort(np.bincount(labels_hw[mask_hw]))[-2:]
        pair = sorted(
            (labels_hw == label for label in largest), key=lambda lung: np.nonzero(lung)[1].mean()
        )
        whole += np.array_equal(lungs.right_hw, pair[0]) and np.array_equal(lungs.left_hw, pair[1])
    assert whole >= len(sample) - 2  # a lung in two pieces is no longer its largest component
