"""``python -m worker``: what an operator types, and what is said when it cannot be done."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_io.sender import send
from tests.worker.bench import Bench
from tests.worker.nodes import ROOT
from tests.worker.readings import chest_film
from tests.worker.storage_scp import storage_scp
from worker.__main__ import application
from worker.addresses import Target
from worker.clock import utc_now
from worker.database import Database
from worker.studies import StudyState


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIMIX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(application, arguments)
    assert result.exit_code == status, result.output
    return result.output


def run_as_operator(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_settings_are_listed_with_their_origin_and_without_passwords(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MULTIMIX_BROKER_URL", "redis://:geheim@broker:6379/0")
    monkeypatch.setenv("COLUMNS", "200")
    text = run("settings")
    assert "geheim" not in text
    assert "redis://:***@broker:6379/0" in text
    line = next(line for line in text.splitlines() if "quiet_seconds" in line)
    assert line.split() == ["quiet_seconds", "3.0", "default"]


def test_what_is_wrong_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMIX_QUIET_SECONDS", "soon")
    done = run_as_operator("status")
    assert done.returncode == 2
    assert done.stderr.startswith("error: MULTIMIX_QUIET_SECONDS (environment): ")
    assert "Traceback" not in done.stderr


def test_a_fresh_home_asks_for_its_tables_and_gets_them(home: Path) -> None:
    done = run_as_operator("status")
    assert (done.returncode, "python -m worker migrate" in done.stderr) == (2, True)
    run("migrate")
    found = json.loads(run("status", "--json"))
    assert (found["counts"], found["targets"], found["studies"]) == ({}, [], [])
    assert found["held"]["bytes"] == 0
    assert "all studies: none" in run("status")
    assert home.stat().st_mode & 0o777 == 0o700


def test_targets_are_asked_whether_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    run("migrate")
    with storage_scp() as (_, target):
        monkeypatch.setenv("MULTIMIX_TARGETS", f"{target}")
        assert "answers" in run("peers", "--echo")
        monkeypatch.setenv("MULTIMIX_TARGETS", f"{target}, DEAD@127.0.0.1:1")
        assert "cannot be reached" in " ".join(run("peers", "--echo", status=1).split())


def test_listing_the_targets_changes_none_of_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    run("migrate")
    database = Database(f"sqlite:///{home}/node.sqlite")
    bench = Bench(database, home / "store", Target.model_validate("PACS@127.0.0.1:1"))
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    before = [vars(peer) | {"_sa_instance_state": None} for peer in bench.peers]
    listed = run_as_operator("peers").stdout
    assert re.search(r"PACS +PACS +127.0.0.1:1 +seg\+sc +yes +2 +20", listed)
    assert "do not name PACS, which the node serves" in listed
    monkeypatch.setenv("MULTIMIX_TARGETS", "PACS@127.0.0.1:2, NEW@127.0.0.1:3")
    listed = run_as_operator("peers").stdout
    assert "PACS as PACS 127.0.0.1:2 seg+sc, which the node goes by from its next start" in listed
    assert "NEW is served from the node's next start on" in listed
    assert [vars(peer) | {"_sa_instance_state": None} for peer in bench.peers] == before
    database.close()


def test_a_study_that_nobody_knows_is_not_requeued() -> None:
    run("migrate")
    assert "nothing to try again" in run("requeue", "--all-failed")
    done = run_as_operator("requeue", "1.2.3")
    assert (done.returncode, "no study 1.2.3 is known" in done.stderr) == (2, True)


def test_what_is_said_to_be_requeued_is_requeued_whatever_comes_after_it(home: Path) -> None:
    run("migrate")
    database = Database(f"sqlite:///{home}/node.sqlite")
    bench = Bench(database, home / "store")
    for uid in ("1.1", "1.2"):
        bench.receive(chest_film(uid))
    bench.reader().read_study(1)  # the other one is still at work
    done = run_as_operator("requeue", "1.1", "1.2", "1.1")
    assert (done.returncode, done.stdout) == (2, "study 1.1 is ready\n")
    assert "study 1.2 is ready; it is still at work" in done.stderr
    assert bench.study(1).state is StudyState.READY
    database.close()


@pytest.mark.parametrize("command", ["status", "migrate", "up"])
def test_a_database_of_a_later_release_is_refused_with_what_to_do(home: Path, command: str) -> None:
    run("migrate")
    with sqlite3.connect(home / "node.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    done = run_as_operator(command)
    assert done.returncode == 2
    assert "schema 0099, which a later release made; install that release again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMIX_DATABASE_URL", "postgresql+psycopg://node:geheim@127.0.0.1:1/node")
    done = run_as_operator("status")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: the database cannot be used: ")
    assert "geheim" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("audit", "--noted-head", "ab"), "--noted-head needs --verify"),
        (("audit", "1.2.3", "--verify"), "checks the whole log"),
    ],
)
def test_questions_to_the_log_that_do_not_fit_together_are_refused(
    arguments: tuple[str, ...], words: str
) -> None:
    run("migrate")
    assert words in run(*arguments, status=2)


def test_dead_letters_are_listed_with_their_reason_and_sent_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    run("migrate")
    database = Database(f"sqlite:///{home}/node.sqlite")
    with storage_scp() as (scp, target):
        bench = Bench(database, home / "store", target)
        bench.receive(chest_film("1.2.3"))
        bench.reader().read_study(1)
        scp.answer = lambda uid: 0xA900
        bench.sender(send).deliver_to(1)
        listed = run_as_operator("status", "--state", "failed").stdout
        assert "2 x not sent to PACS: refused by the peer for good, status 0xA900" in listed
        assert "study 1.2.3 is delivering" in run("requeue", "--all-failed")

        scp.answer = lambda uid: 0x0000
        bench.clock.now = utc_now()
        bench.sender(send).deliver_to(1)
        assert bench.study().state is StudyState.DONE
        assert len(scp.received) == 2
        assert "nothing to try again" in run("requeue", "--all-failed")
    database.close()
