"""Attributes refuse what is no frontal chest film, and let through what they leave open."""

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage

from dicom_io.eligibility import require_frontal_chest
from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.phantom import draw_phantom, phantom_dataset

REAL_FILMS = Path(__file__).parents[3] / "shared" / "data" / "dicom"
ANATOMY = ("BodyPartExamined", "AnatomicRegionSequence", "StudyDescription", "ViewPosition")


@pytest.fixture
def film() -> Dataset:
    return phantom_dataset(draw_phantom(1, 96, 96))


def bare(film: Dataset) -> Dataset:
    """The film without a word about its anatomy."""
    for keyword in (*ANATOMY, "ViewCodeSequence"):
        del film[keyword]
    return film


def reason_for(film: Dataset) -> RejectionReason:
    with pytest.raises(ImageRejected) as refusal:
        require_frontal_chest(film)
    return refusal.value.reason


def test_a_film_that_says_nothing_of_its_anatomy_is_let_through(film: Dataset) -> None:
    require_frontal_chest(bare(film))


@pytest.mark.parametrize("body_part", ["CHEST", "THORAX", "LUNG", "Thorax", "TÓRAX", "TORACE"])
def test_chest_in_several_languages_is_accepted(film: Dataset, body_part: str) -> None:
    bare(film).BodyPartExamined = body_part
    require_frontal_chest(film)


@pytest.mark.parametrize(
    "body_part", ["HIP", "EXTREMITY", "KNEE", "SKULL", "ABDOMEN", "CSPINE", "HAND", "TEETH"]
)
def test_other_body_parts_are_refused(film: Dataset, body_part: str) -> None:
    bare(film).BodyPartExamined = body_part
    assert reason_for(film) is RejectionReason.NOT_CHEST


@pytest.mark.parametrize(
    "description", ["MODALITYLUT - TEETH", "Hüfte beidseits", "Orthopantomogram"]
)
def test_a_description_refuses_where_the_body_part_is_silent(
    film: Dataset, description: str
) -> None:
    bare(film).StudyDescription = description
    assert reason_for(film) is RejectionReason.NOT_CHEST


def test_the_body_part_speaks_before_the_description(film: Dataset) -> None:
    bare(film).BodyPartExamined = "CHEST"
    film.StudyDescription = "Trauma: chest, pelvis, cervical spine"
    require_frontal_chest(film)


@pytest.mark.parametrize("view", ["LL", "RL", "LATERAL"])
def test_lateral_views_are_refused(film: Dataset, view: str) -> None:
    film.ViewPosition = view
    assert reason_for(film) is RejectionReason.NOT_FRONTAL


def test_a_lateral_series_is_refused_but_an_examination_of_both_views_is_not(
    film: Dataset,
) -> None:
    bare(film).SeriesDescription = "Chest lateral"
    assert reason_for(film) is RejectionReason.NOT_FRONTAL
    film.SeriesDescription = "Chest PA and lateral"
    require_frontal_chest(film)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_missing_uid_is_named(film: Dataset, keyword: str) -> None:
    setattr(film, keyword, "")
    with pytest.raises(ImageRejected, match=keyword) as refusal:
        require_frontal_chest(film)
    assert refusal.value.reason is RejectionReason.NO_UID


def test_other_storage_classes_and_results_of_this_node_are_told_apart(film: Dataset) -> None:
    film.SOPClassUID = CTImageStorage
    assert reason_for(film) is RejectionReason.UNSUPPORTED_CLASS
    film.ManufacturerModelName = "MultiMix node"
    assert reason_for(film) is RejectionReason.OWN_RESULT


@pytest.mark.skipif(not REAL_FILMS.is_dir(), reason="the real films are not here")
@pytest.mark.parametrize("path", sorted(REAL_FILMS.glob("*.dcm")), ids=lambda path: path.stem)
def test_real_chest_films_pass_and_leg_hip_and_teeth_do_not(path: Path) -> None:
    film = dcmread(path)
    if path.stem.startswith("chest"):
        require_frontal_chest(film)
    else:
        assert reason_for(film) is RejectionReason.NOT_CHEST
        with pytest.raises(ImageRejected, match="rejected: not a chest radiograph"):
            require_frontal_chest(film)
