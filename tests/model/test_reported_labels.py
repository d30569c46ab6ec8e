"""Labels out of structured reports: files on disk, through the trainer's own reader."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import highdicom as hd
import pytest
from highdicom.sr import FindingSite
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.report import build_report
from dicom_io.result_object import decoded, encoded
from dicom_io.uids import MANUFACTURER_MODEL_NAME
from model.dataset import load_exports
from model.image_table import ImageTable
from tests.dicom_io.reports import (
    ABSENT,
    FINDING,
    FINDING_SITE,
    FINDINGS,
    HEART,
    LUNG,
    NORMAL,
    PNEUMONIA,
    PRESENCE,
    PRESENT,
    RIGHT,
    UNDETERMINED,
    coded,
    container,
    evidence_of,
    image,
    measurement_report,
    plain_report,
    text,
)
from tests.dicom_io.sources import findings_in

PHANTOM = draw_phantom(1, 80, 72)
LATERAL_UID = generate_uid()
Reports = Callable[[Dataset], list[Dataset]]


def film_of(name: str, **changes: object) -> Dataset:
    dataset = phantom_dataset(
        PHANTOM,
        study_uid=generate_uid(entropy_srcs=["study", name]),
        sop_instance_uid=generate_uid(entropy_srcs=["film", name]),
        patient_id=name,
    )
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def finding(value: Code, *qualifiers: Dataset) -> Reports:
    """A plain report with one coded finding."""
    return lambda film: [
        plain_report(film, container(FINDINGS, coded(FINDING, value, *qualifiers)))
    ]


def measured(*arguments: object, **options: object) -> Reports:
    """A TID 1500 report by highdicom."""
    return lambda film: [measurement_report(film, *arguments, **options)]  # type: ignore[arg-type]


def own(film: Dataset) -> list[Dataset]:
    """What this node says of a film, as it comes back out of an archive."""
    created = datetime(2026, 11, 23, tzinfo=UTC)
    return [decoded(encoded(build_report(film, findings_in(film), created)))]


def own_renamed(film: Dataset) -> list[Dataset]:
    """The same out of an archive that writes its own name into the equipment module."""
    (report,) = own(film)
    report.Manufacturer, report.ManufacturerModelName = "Archive", "Gateway"
    return [report]


def replaced(film: Dataset) -> list[Dataset]:
    first = measurement_report(film)
    return [first, measurement_report(film, evaluations=[(PRESENCE, ABSENT)], predecessors=[first])]


def in_circles(film: Dataset) -> list[Dataset]:
    """Two reports that each replace the other."""
    first, second = (plain_report(film, coded(FINDING, PNEUMONIA)) for _ in range(2))
    first.PredecessorDocumentsSequence = [evidence_of(second)]
    second.PredecessorDocumentsSequence = [evidence_of(first)]
    return [first, second]


def contradicting(film: Dataset) -> list[Dataset]:
    return [measurement_report(film), measurement_report(film, evaluations=[(PRESENCE, ABSENT)])]


def contradicting_itself(film: Dataset) -> list[Dataset]:
    return [plain_report(film, coded(FINDING, PNEUMONIA), coded(FINDING, NORMAL))]


def of_the_history(film: Dataset) -> list[Dataset]:
    history = container(Code("121060", "DCM", "History"), coded(FINDING, PNEUMONIA))
    return [plain_report(film, history)]


def of_the_study(film: Dataset) -> list[Dataset]:
    return [plain_report(film, coded(FINDING, PNEUMONIA), names_its_image=False)]


def of_the_image_in_the_text(film: Dataset) -> list[Dataset]:
    statement = coded(FINDING, PNEUMONIA, image(film))
    return [plain_report(film, statement, names_its_image=False)]


def of_another_image(film: Dataset) -> list[Dataset]:
    return [measurement_report(film_of("of another export"))]


def of_a_film_for_comparison(film: Dataset) -> list[Dataset]:
    current = film_of("of today", StudyInstanceUID=film.StudyInstanceUID)
    report = plain_report(current, coded(FINDING, PNEUMONIA))
    report.PertinentOtherEvidenceSequence = [evidence_of(film)]
    return [report]


def normal_heart(film: Dataset) -> list[Dataset]:
    return [plain_report(film, container(HEART, coded(FINDING, NORMAL)))]


SITE = partial(FindingSite, anatomic_location=LUNG)
CASES: dict[str, tuple[Reports, str | None]] = {
    "TID 1500": (measured(), "pneumonia"),
    "Enhanced SR": (measured(writer=hd.sr.EnhancedSR), "pneumonia"),
    "Comprehensive 3D SR": (measured(writer=hd.sr.Comprehensive3DSR), "pneumonia"),
    "present": (measured(evaluations=[(PRESENCE, PRESENT)]), "pneumonia"),
    "absent": (measured(evaluations=[(PRESENCE, ABSENT)]), "normal"),
    "undetermined": (measured(evaluations=[(PRESENCE, UNDETERMINED)]), None),
    "named by the disease": (measured(LUNG, [(PNEUMONIA, PRESENT)]), "pneumonia"),
    "named by the disease, absent": (measured(LUNG, [(PNEUMONIA, ABSENT)]), "normal"),
    "finding and evaluation": (measured(PNEUMONIA, [(PNEUMONIA, ABSENT)]), "normal"),
    "evaluation of an unknown name": (
        measured(PNEUMONIA, [(Code("X", "99Y", "Seen"), ABSENT)]),
        None,
    ),
    "absent in the lungs": (measured(evaluations=[(PRESENCE, ABSENT)], sites=[SITE()]), "normal"),
    "absent in the right lung": (
        measured(evaluations=[(PRESENCE, ABSENT)], sites=[SITE(laterality=RIGHT)]),
        None,
    ),
    "present in the right lung": (measured(sites=[SITE(laterality=RIGHT)]), "pneumonia"),
    "image in the evidence alone": (measured(names_its_image=False), "pneumonia"),
    "bronchopneumonia": (finding(Code("396285007", "SCT", "Bronchopneumonia")), "pneumonia"),
    "SNOMED RT": (finding(Code("D2-0061C", "SRT", "Pneumonia")), "pneumonia"),
    "SNOMED RT by its old name": (finding(Code("G-A460", "SNM3", "Normal")), "normal"),
    "RadLex": (finding(Code("RID5350", "RADLEX", "pneumonia")), "pneumonia"),
    "a plain finding": (finding(PNEUMONIA), "pneumonia"),
    "a plain finding, absent": (finding(PNEUMONIA, coded(PRESENCE, ABSENT)), "normal"),
    "a plain finding, known absent in SNOMED RT": (
        finding(PNEUMONIA, coded(PRESENCE, Code("G-A46B", "SRT", "Known absent"))),
        "normal",
    ),
    "normal": (finding(NORMAL), "normal"),
    "normality undetermined": (finding(NORMAL, coded(PRESENCE, UNDETERMINED)), None),
    "undetermined alone": (finding(UNDETERMINED), None),
    "a normal heart by its section": (normal_heart, None),
    "a normal heart by its site": (finding(NORMAL, coded(FINDING_SITE, HEART)), None),
    "pneumonitis": (finding(Code("205237003", "SCT", "Pneumonitis")), None),
    "the same value in another scheme": (finding(Code("233604007", "99X", "Pneumonia")), None),
    "history": (of_the_history, None),
    "the study's only film": (of_the_study, "pneumonia"),
    "image in the content": (of_the_image_in_the_text, "pneumonia"),
    "another image": (of_another_image, None),
    "a film for comparison": (of_a_film_for_comparison, None),
    "own result": (own, None),
    "own result, renamed": (own_renamed, None),
    "contradiction": (contradicting, None),
    "contradiction within": (contradicting_itself, None),
    "replaced": (replaced, "normal"),
    "replaced in circles": (in_circles, None),
}
COMPLAINTS = {"contradiction": 1, "contradiction within": 1, "replaced in circles": 2}


@dataclass(frozen=True)
class Loaded:
    """An export with one film for each case, as the trainer reads it."""

    folder: Path
    table: ImageTable

    def label(self, case: str) -> str | None:
        (label,) = (record.label for record in self.table.records if record.patient == case)
        return label

    def problems(self, case: str) -> list[str]:
        return [reason for path, reason in self.table.problems if Path(path).parent.name == case]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("export")
    for case, (reports, _) in CASES.items():
        film = film_of(case)
        write(folder / case, film, *reports(film))
    return Loaded(folder, load_exports([folder], tmp_path_factory.mktemp("cache"), jobs=1))


def write(folder: Path, *objects: Dataset) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, instance in enumerate(objects):
        instance.save_as(folder / f"IM{number:04}", enforce_file_format=True)


def load(folder: Path) -> ImageTable:
    return load_exports([folder], folder.with_name("cache"), jobs=1)


@pytest.mark.parametrize("case", CASES)
def test_a_film_gets_the_class_that_its_reports_state_and_no_other(
    loaded: Loaded, case: str
) -> None:
    assert loaded.label(case) == CASES[case][1]
    assert len(loaded.problems(case)) == COMPLAINTS.get(case, 0), loaded.problems(case)


def test_no_complaint_names_a_patient(loaded: Loaded) -> None:
    assert loaded.table.problems
    for _, reason in loaded.table.problems:
        assert "Phantom" not in reason


def test_a_table_goes_before_a_report_and_a_report_fills_its_gaps(tmp_path: Path) -> None:
    films = [film_of(name) for name in ("in the table", "with a gap", "of the report")]
    for number, film in enumerate(films):
        write(tmp_path / "export" / str(number), film, measurement_report(film))
    (tmp_path / "export" / "labels.csv").write_text(
        "SOPInstanceUID,label,split\n"
        f"{films[0].SOPInstanceUID},normal,test\n{films[1].SOPInstanceUID},,train\n"
    )
    facts = {r.patient: (r.label, r.split) for r in load(tmp_path / "export").records}
    assert facts == {
        "in the table": ("normal", "test"),
        "with a gap": ("pneumonia", "train"),
        "of the report": ("pneumonia", None),
    }


def test_a_lateral_film_gets_no_label_and_does_not_hide_the_frontal_one(tmp_path: Path) -> None:
    frontal = film_of("frontal")
    lateral = film_of("lateral", StudyInstanceUID=frontal.StudyInstanceUID, ViewPosition="LL")
    report = plain_report(frontal, coded(FINDING, PNEUMONIA), names_its_image=False)
    named = plain_report(lateral, coded(FINDING, PNEUMONIA))
    write(tmp_path / "export", frontal, lateral, report, named)
    labels = {r.patient: r.label for r in load(tmp_path / "export").records}
    assert labels == {"frontal": "pneumonia", "lateral": None}


def test_of_two_frontal_films_a_report_that_names_none_says_nothing(tmp_path: Path) -> None:
    first = film_of("first")
    second = film_of("second", StudyInstanceUID=first.StudyInstanceUID)
    write(tmp_path / "export", first, second, *of_the_study(first))
    assert [r.label for r in load(tmp_path / "export").records] == [None, None]


def nested(film: Dataset, levels: int) -> Dataset:
    item = coded(FINDING, PNEUMONIA)
    for _ in range(levels):
        item = container(FINDINGS, item)
    return plain_report(film, item)


ITEM_OF_UNDEFINED_LENGTH = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
CONTENT_SEQUENCE = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + ITEM_OF_UNDEFINED_LENGTH


def test_hostile_reports_end_in_the_problems(tmp_path: Path) -> None:
    film, report = film_of("film"), encoded(plain_report(film_of("film")))
    folder = tmp_path / "export"
    large = plain_report(film, coded(FINDING, PNEUMONIA), text(FINDING, "x" * (17 << 20)))
    write(folder, film, nested(film, 60), large)
    (folder / "many").write_bytes(report + ITEM_OF_UNDEFINED_LENGTH * 50_001)
    (folder / "abyss").write_bytes(report + CONTENT_SEQUENCE * 5_000)
    bomb = plain_report(film, text(FINDING, "x" * (2 << 20)))
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    bomb.save_as(folder / "bomb", enforce_file_format=True)
    table = load(folder)
    assert [record.label for record in table.records] == [None]
    reasons = {Path(path).name: reason for path, reason in table.problems}
    assert "nested deeper" in reasons["IM0001"]
    assert "more than 16 MiB" in reasons["IM0002"]
    assert "more than 50000 items" in reasons["many"]
    assert "inflates to more than 1 MiB" in reasons["bomb"]
    assert "damaged: RecursionError" in reasons["abyss"]


def test_the_node_knows_its_own_results_by_either_sign() -> None:
    film = film_of("film")
    assert own(film)[0].ManufacturerModelName == MANUFACTURER_MODEL_NAME
    assert own_renamed(film)[0].ManufacturerModelName != MANUFACTURER_MODEL_NAME
