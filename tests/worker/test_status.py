"""The operator sees what became of every study, and why."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dicom_io.sender import send
from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.readings import bring, chest_film
from tests.worker.storage_scp import storage_scp
from worker.database import Database
from worker.signs_of_life import LISTENER, opening, show_sign_of_life
from worker.status import StatusQuery, print_status, read_status
from worker.studies import StudyState


@pytest.fixture
def bench(any_database: Database, tmp_path: Path) -> Bench:
    """A node that has read one study, rejected one, and got an object that names none."""
    with storage_scp() as (_, target):
        bench = Bench(any_database, tmp_path / "store", target)
        bench.receive(chest_film("1.2.3", 1), chest_film("1.2.3", 2, ViewPosition="LL"))
        bench.reader().read_study(1)
        bench.sender(send).deliver_to(1)
        bench.receive(chest_film("1.2.4", BodyPartExamined="HIP"))
        bench.reader().read_study(bench.waker.readers[-1])
    one = association()
    bench.intake.association_accepted(one)
    nameless = chest_film("1.9")
    del nameless.StudyInstanceUID
    bring(nameless, bench.store, bench.intake, one)
    return bench


def status_of(bench: Bench, **query: object) -> dict:
    with bench.database.reading() as session:
        return read_status(session, bench.store, StatusQuery(**query))


def test_programs_get_everything_as_json(bench: Bench) -> None:
    status = json.loads(json.dumps(status_of(bench)))
    assert status["counts"] == {"done": 1, "rejected": 2}
    nameless, hip, done = status["studies"]
    assert (done["study_uid"], done["state"], done["revision"]) == ("1.2.3", "done", 1)
    assert (done["verdict"], done["probability"]) == ("pneumonia", 0.87)
    assert done["deliveries"] == {"delivered": 2}
    film, lateral = done["instances"]
    assert film["lung_area_percent"] > 0
    assert film["model"] == "MultiMix 0.1.0"
    assert [Path(result["path"]).is_file() for result in film["results"]] == [True] * 3
    assert film["results"][0]["deliveries"][0]["status"] == "0x0000"
    assert (lateral["state"], lateral["results"]) == ("rejected", [])
    assert lateral["reason"] == "not a frontal view (view position LL)"
    assert hip["reason"] == "not a chest radiograph"
    assert nameless["study_uid"] is None
    assert nameless["instances"][0]["reason"] == nameless["reason"]
    assert "StudyInstanceUID is missing" in nameless["reason"]


def test_programs_learn_when_each_part_was_last_seen(bench: Bench) -> None:
    show_sign_of_life(bench.database, LISTENER, bench.clock.now)
    show_sign_of_life(bench.database, opening("reading"), bench.clock.now)  # once, and no more
    with bench.database.reading() as session:
        parts = read_status(session, bench.store, StatusQuery())["parts"]
    assert parts == {LISTENER: bench.clock.now.isoformat(timespec="seconds")}
    page = io.StringIO()
    print_status(status_of(bench), Console(file=page, width=200))
    assert f"listener: last sign of life {parts[LISTENER]}" in page.getvalue()


def test_what_a_film_says_in_brackets_is_printed_as_it_stands(bench: Bench) -> None:
    film = chest_film("1.2.9")
    film.Modality = "[/X]"
    bench.receive(film)
    bench.reader().read_study(bench.waker.readers[-1])
    page = io.StringIO()
    print_status(status_of(bench), Console(file=page, width=300))
    assert "(modality [/X])" in page.getvalue()


def test_studies_can_be_chosen(bench: Bench) -> None:
    assert [s["study_uid"] for s in status_of(bench, study_uid="1.2.4")["studies"]] == ["1.2.4"]
    rejected = status_of(bench, states=(StudyState.REJECTED,))["studies"]
    assert [s["study_uid"] for s in rejected] == [None, "1.2.4"]
    assert len(status_of(bench, limit=1)["studies"]) == 1


def test_people_get_a_table_with_reasons_and_no_patient(bench: Bench) -> None:
    page = io.StringIO()
    print_status(status_of(bench), Console(file=page, width=200))
    text = page.getvalue()
    for expected in ("1.2.3", "done", "pneumonia", "0.87", "2/2", "not a chest radiograph"):
        assert expected in text
    assert "all studies: 1 done, 2 rejected" in text or "2 rejected, 1 done" in text
    assert "ller" not in text, "the patient of these films is called Müller"
