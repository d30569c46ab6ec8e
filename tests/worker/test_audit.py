"""What the event log tells of a study, of refusals, and on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_io.access_control import Refusal
from dicom_io.errors import MultiMixError
from dicom_io.sender import send
from tests.dicom_io.sources import MODEL
from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.readings import chest_film
from tests.worker.storage_scp import storage_scp
from worker.__main__ import application
from worker.audit import LogEntry, latest_entries, study_life
from worker.audit_chain import chain_new_entries
from worker.database import Database
from worker.requeueing import requeue_study


def life(database: Database, study_uid: str) -> list[LogEntry]:
    with database.reading() as session:
        return study_life(session, study_uid)


def test_a_study_tells_its_life_in_order(any_database: Database, tmp_path: Path) -> None:
    with storage_scp() as (_, target):
        bench = Bench(any_database, tmp_path, target)
        bench.receive(chest_film("1.2.3"))
        bench.receive(chest_film("1.2.4"))
        (peer_key,) = bench.reader().read_study(1)
        bench.sender(send).deliver_to(peer_key)
        with any_database.writing() as session:
            requeue_study(session, 1, bench.clock())
    chain_new_entries(any_database)
    entries = life(any_database, "1.2.3")

    assert [entry.position for entry in entries] == sorted(entry.position or 0 for entry in entries)
    told = [(entry.kind, entry.detail.get("target")) for entry in entries]
    assert told == [
        ("association accepted", None),
        ("instance stored", None),
        ("association ended", None),
        ("study step", "ready"),
        ("study step", "running"),
        ("instance read", None),
        ("study step", "delivering"),
        ("result sent", f"{target.ae_title} at {target.address}"),
        ("result sent", f"{target.ae_title} at {target.address}"),
        ("study step", "done"),
        ("study step", "ready"),
    ]
    assert (entries[1].calling_ae_title, entries[1].host) == ("CT1", "127.0.0.1")
    read = entries[5].detail
    assert read["model_version"] == MODEL.version
    assert set(read["results"]) >= {"segmentation", "secondary capture"}
    assert entries[7].detail["status"] == 0
    assert entries[10].detail["step"] == "requeued"


def test_the_log_holds_no_findings(any_database: Database, tmp_path: Path) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    told = json.dumps([entry.as_json() for entry in life(any_database, "1.2.3")])
    assert "instance read" in told
    assert not any(word in told for word in ("verdict", "pneumonia", "probability"))


def test_refused_associations_are_in_the_log(any_database: Database, tmp_path: Path) -> None:
    bench = Bench(any_database, tmp_path)
    bench.intake.association_refused(association("STRANGER"), Refusal.UNKNOWN_CALLING)
    with any_database.reading() as session:
        (entry,) = latest_entries(session, 10)
    assert entry.kind == "association refused"
    assert "calling=STRANGER" in entry.as_line()
    assert "reason=calling AE title is not on the list" in entry.as_line()


def test_the_latest_entries_are_as_many_as_asked_for(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"))
    with any_database.reading() as session:
        assert [entry.kind for entry in latest_entries(session, 2)] == [
            "association ended",
            "study step",
        ]


def test_an_unknown_study_is_said_to_be_unknown(database: Database) -> None:
    with pytest.raises(MultiMixError, match=r"no study 9\.9 is known"):
        life(database, "9.9")


def test_the_command_line_tells_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIMIX_HOME", str(tmp_path / "home"))
    run = CliRunner().invoke
    assert run(application, ["migrate"]).exit_code == 0
    database = Database(f"sqlite:///{tmp_path / 'home' / 'node.sqlite'}")
    Bench(database, tmp_path / "store").receive(chest_film("1.2.3"))

    told = run(application, ["audit", "1.2.3"]).output.splitlines()
    assert "association accepted  by CT1 (127.0.0.1)" in told[0]
    assert json.loads(run(application, ["audit", "1.2.3", "--json"]).output)[1]["detail"][
        "sop_instance_uid"
    ].startswith("1.2.3.1.")
    assert "4 entries wait" in run(application, ["audit", "--verify"]).output
    chain_new_entries(database)
    report = json.loads(run(application, ["audit", "--verify", "--json"]).output)
    assert (report["intact"], report["entries"]) == (True, 4)
    wrong = run(application, ["audit", "--verify", "--noted-head", "f" * 64])
    assert wrong.exit_code == 1
    database.close()
