"""What a command writes is its owner's alone, wherever it writes; no command names a patient."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.worker.nodes import ROOT
from tests.worker.test_patient_data import film, troublesome_films


def typed(home: Path, *arguments: str, status: int = 0) -> str:
    """Run ``python -m worker`` as an operator with a lax umask does; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MULTIMIX_HOME": str(home)},
        cwd=home,
        umask=0o000,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def open_to_others(paths: Iterable[Path]) -> list[str]:
    return [f"{path.name} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077]


@pytest.mark.parametrize("first", [("status",), ("migrate",), ("peers",)], ids=" ".join)
def test_the_first_command_in_a_home_that_others_may_enter_makes_a_private_database(
    tmp_path: Path, first: tuple[str, ...]
) -> None:
    tmp_path.chmod(0o755)
    typed(tmp_path, *first, status=0 if first == ("migrate",) else 2)
    made = [path for path in tmp_path.iterdir() if path.name.startswith("node.sqlite")]
    assert made
    assert open_to_others(made) == []


def test_a_batch_names_no_patient_but_in_its_results_which_are_private(tmp_path: Path) -> None:
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    for number, dataset in enumerate([film(1), *troublesome_films()]):
        dataset.save_as(films / f"{number}.dcm", enforce_file_format=True)
    said = typed(tmp_path, "batch", str(films), str(out), "--results", "seg,sc,sr")
    assert "4 read, 5 rejected, 0 failed" in said
    table = (out / "results.csv").read_text()
    assert len(table.splitlines()) == 10
    assert "canary" not in (said + table).lower()
    results = list((out / "objects").iterdir())
    assert len(results) == 4 * 3
    assert all(b"Canary^Bird" in path.read_bytes() for path in results)
    assert open_to_others([out, *out.rglob("*")]) == []


def test_a_command_line_argument_of_a_home_is_made_private(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    (tmp_path / "new").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "worker", "migrate"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MULTIMIX_HOME": str(home)},
        umask=0o000,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert open_to_others(home.iterdir()) == []
