"""Attributes refuse what is no frontal chest film, and let through what they leave open."""

import contextlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_io.eligibility import require_frontal_chest
from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.phantom import draw_phantom, phantom_dataset

REAL_FILMS = Path(__file__).parents[3] / "shared" / "data" / "dicom"
ANATOMY = ("BodyPartExamined", "AnatomicRegionSequence", "StudyDescription", "ViewPosition")


def file_of(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


WHOLE_FILE = file_of(phantom_dataset(draw_phantom(1, 64, 64)))


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


@pytest.mark.parametrize(
    "body_part",
    [
        "CHEST",
        "THORAX",
        "LUNG",
        "Thorax",
        "TÓRAX",
        "TORACE",
        "CHESTABDOMEN",
        "Cage thoracique",
        "胸部",
        "흉부",
        "Органы грудной клетки",
    ],
)
def test_chest_in_several_languages_is_accepted(film: Dataset, body_part: str) -> None:
    bare(film).BodyPartExamined = body_part
    require_frontal_chest(film)


@pytest.mark.parametrize(
    "body_part",
    [
        "HIP",
        "EXTREMITY",
        "KNEE",
        "SKULL",
        "ABDOMEN",
        "CSPINE",
        "TSPINE",
        "HAND",
        "TEETH",
        "JAW",
        "BREAST",
        "LOWER_EXTREMITY",
        "腹部",
        "膝関節",
        "骨盆",
        "복부",
        "Колено",
    ],
)
def test_other_body_parts_are_refused(film: Dataset, body_part: str) -> None:
    bare(film).BodyPartExamined = body_part
    assert reason_for(film) is RejectionReason.NOT_CHEST


@pytest.mark.parametrize(
    "description",
    [
        "MODALITYLUT - TEETH",
        "Hüfte beidseits",
        "Hueftgelenk re.",
        "Orthopantomogram",
        "Thoracic spine AP",
        "Brustwirbelsäule 2 Ebenen",
        "Columna torácica",
        "胸椎正面",
        "흉추",
        "Thorako-lumbaler Übergang",
        "genou droit face",
        "Unterschenkel / tibia",
        "Abdomen en décubitus",
    ],
)
def test_a_description_refuses_where_the_body_part_is_silent(
    film: Dataset, description: str
) -> None:
    bare(film).StudyDescription = description
    assert reason_for(film) is RejectionReason.NOT_CHEST


@pytest.mark.parametrize(
    "description",
    ["Handheld unit", "Bedside film", "Leggett ward", "MAIN BUILDING", "Mobile C-arm", "Header"],
)
def test_words_that_only_begin_like_a_body_part_refuse_nothing(
    film: Dataset, description: str
) -> None:
    bare(film).StudyDescription = description
    require_frontal_chest(film)


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


@pytest.mark.parametrize(
    "series", ["Thorax seitlich", "胸部側面", "Tórax perfil", "Chest LAT", "흉부 측면"]
)
def test_lateral_series_are_refused_in_several_languages(film: Dataset, series: str) -> None:
    bare(film).SeriesDescription = series
    assert reason_for(film) is RejectionReason.NOT_FRONTAL


def test_a_film_whose_rows_run_from_front_to_back_is_no_frontal_one(film: Dataset) -> None:
    bare(film).PatientOrientation = ["A", "F"]
    assert reason_for(film) is RejectionReason.NOT_FRONTAL
    film.ViewPosition = "PA"
    require_frontal_chest(film)


@pytest.mark.parametrize("modality", ["MG", "PX", "CT", "US", "IO"])
def test_other_modalities_are_refused_in_any_storage_class(film: Dataset, modality: str) -> None:
    film.SOPClassUID = SecondaryCaptureImageStorage
    film.Modality = modality
    assert reason_for(film) is RejectionReason.NOT_CHEST


@pytest.mark.parametrize(
    "storage_class",
    [
        ComputedRadiographyImageStorage,
        DigitalXRayImageStorageForProcessing,
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    ],
    ids=lambda uid: uid.name,
)
def test_every_storage_class_that_holds_a_chest_film_is_accepted(
    film: Dataset, storage_class: str
) -> None:
    film.SOPClassUID = storage_class
    require_frontal_chest(film)


@pytest.mark.parametrize("keyword", ["Modality", "BodyPartExamined", "ViewPosition", "Rows"])
def test_a_header_that_cannot_be_read_is_refused_as_unreadable(film: Dataset, keyword: str) -> None:
    tag = film[keyword].tag
    unknown = "XX"
    film[tag] = RawDataElement(tag, unknown, 4, b"abcd", 0, False, True)
    assert reason_for(film) is RejectionReason.UNREADABLE


@settings(max_examples=150, deadline=None)
@given(position=st.integers(132, 1400), value=st.integers(0, 255), more=st.binary(max_size=6))
def test_a_damaged_header_ends_in_acceptance_or_a_reason(
    position: int, value: int, more: bytes
) -> None:
    content = bytearray(WHOLE_FILE)
    content[position : position + 1 + len(more)] = bytes((value,)) + more
    try:
        damaged = dcmread(BytesIO(bytes(content)), force=True)
    except Exception:  # noqa: BLE001 - reading the file is not what is under test
        return
    with contextlib.suppress(ImageRejected):
        require_frontal_chest(damaged)


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
