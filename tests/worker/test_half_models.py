"""A model that never learnt one of the two tasks is refused before it reads a film."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_io.errors import CheckpointError
from dicom_io.phantom import draw_phantom, phantom_dataset
from model.checkpoint import ModelCard, write_model
from model.network import MultiMixNetwork, NetworkShape
from model.presets import configure
from tests.worker.nodes import ROOT
from worker.database import Database
from worker.reading import load_model
from worker.settings import Settings
from worker.worker_process import WorkerProcess

HALVES = [("unet", "verdicts"), ("enc", "lung masks")]


def written(folder: Path, model: str) -> Path:
    """A small model of a row of the paper's table."""
    config = configure("best", model=model).model_dump(mode="json")
    card = ModelCard(version="1", network={}, training_config=config)
    write_model(folder, MultiMixNetwork(NetworkShape(channels=(2, 2, 2, 2, 2))), card)
    return folder


@pytest.mark.parametrize(("model", "missing"), HALVES)
def test_a_worker_does_not_start_with_half_a_model(
    settings: Settings, database: Database, tmp_path: Path, model: str, missing: str
) -> None:
    half = settings.model_copy(update={"model_directory": written(tmp_path / model, model)})
    with pytest.raises(CheckpointError, match=f"{model} never learnt {missing}, which every"):
        WorkerProcess(half, reads=True)


def test_batch_ends_with_a_sentence_and_reads_nothing_with_half_a_model(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    phantom_dataset(draw_phantom(1, 128, 128)).save_as(films / "f.dcm", enforce_file_format=True)
    done = subprocess.run(
        [sys.executable, "-m", "worker", "batch", str(films), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=os.environ | {"MULTIMIX_MODEL_DIRECTORY": str(written(tmp_path / "unet", "unet"))},
    )
    assert done.returncode == 2
    assert "never learnt verdicts" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_of_both_tasks_is_loaded_whatever_else_it_learnt_from(tmp_path: Path) -> None:
    for model in ("umtl", "multimix"):
        assert load_model(written(tmp_path / model, model), "cpu").card.version == "1"
