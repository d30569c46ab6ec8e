"""A trainer knows who its films are of, and nobody else learns it from what it writes or says."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.exports import manifest_row, write_export
from tests.model.runs import SHORT

ROOT = Path(__file__).parents[2]
FILMS = 16

# One process makes the run that all of them look at.
pytestmark = pytest.mark.xdist_group("patient data of a run")


def canary_row(number: int) -> str:
    return re.sub(r",p\d+,", f",CANARY-{number},", manifest_row(number))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose Patient IDs are canaries."""
    export = write_export(tmp_path_factory.mktemp("canaries"), FILMS, canary_row)
    assert any(b"CANARY-3" in path.read_bytes() for path in export.rglob("*.dcm"))
    return export


@pytest.fixture(scope="module")
def run(export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A training, an evaluation and a report as an operator types them, and all that is said."""
    folder = tmp_path_factory.mktemp("run")
    options = [option for setting in SHORT for option in ("--set", setting)]
    cache = ["--cache", str(folder / "cache")]
    said = [
        typed("train", "--data", export, "--out", folder / "run", *cache, *options),
        typed("train", "--data", export, "--out", folder / "run", *cache, "--resume"),
        typed("evaluate", "--data", export, "--checkpoint", folder / "run" / "model", *cache),
        typed("report", folder / "run", "--data", export, *cache),
    ]
    return folder, "\n".join(said)


def typed(command: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"model.{command}", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "300"},
        umask=0o022,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_no_patient_is_named_in_a_run_its_scalars_its_report_or_what_is_said(
    run: tuple[Path, str],
) -> None:
    folder, said = run
    written = files(folder / "run")
    names = " ".join(path.name for path in written)
    for expected in (
        "events.out.tfevents",
        "metrics.csv",
        "splits.csv",
        "card.json",
        "report.html",
    ):
        assert expected in names
    assert [path for path in written if b"canary" in path.read_bytes().lower()] == []
    assert "canary" not in said.lower()


def test_what_holds_films_or_patient_ids_is_its_owners_alone(run: tuple[Path, str]) -> None:
    folder, _ = run
    cached = files(folder / "cache")
    assert any(b"CANARY-3" in path.read_bytes() for path in cached)
    private = [
        *cached,
        *(path.parent for path in cached),
        *(folder / "run" / name for name in ("report.html", "problems.csv")),
    ]
    assert [path for path in private if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
