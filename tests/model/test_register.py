import json

import pytest

from dicom_io.errors import CheckpointError
from model.checkpoint import (
    CARD_FILE,
    WEIGHTS_FILE,
    Calibration,
    ModelCard,
    read_model,
    write_model,
)
from model.config import TrainingConfig
from model.dataset import load_exports
from model.network import MultiMixNetwork, NetworkShape
from model.predictor import Predictor
from model.register import limitations_of, read_licences, register, rounded
from model.run_folder import write_config
from tests.model.exports import write_export


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("export"), 8)


@pytest.fixture
def run(tmp_path):
    card = ModelCard(
        version="0",
        network={},
        calibration=Calibration(scale=2, operating_point=0.4),
        training_data={"Clinic": 6},
        training_data_sha256="f" * 64,
        metrics={"held-out patients": {"dice": 0.5}},
    )
    network = MultiMixNetwork(NetworkShape(channels=(2, 2, 2, 2, 2)))
    write_model(tmp_path / "run" / "model", network, card)
    write_config(tmp_path / "run", TrainingConfig())
    return tmp_path / "run"


def handed_over(run, export, tmp_path, version="1.0.0"):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    return register(run, table, read_licences([export]), tmp_path / "models", version)


def test_a_registered_model_answers_as_the_runs_best_did(run, export, tmp_path):
    folder = handed_over(run, export, tmp_path)
    assert folder == tmp_path / "models" / "multimix-1.0.0"
    before, after = read_model(run / "model")[1], read_model(folder)[1]
    assert after.weights_sha256 == before.weights_sha256
    assert after.calibration == before.calibration
    film = load_exports([export], tmp_path / "cache").images[0]
    probabilities = [Predictor.load(f).predict(film).probability for f in (run / "model", folder)]
    assert probabilities[0] == probabilities[1]


def test_its_card_says_what_it_learnt_from_and_how_well_it_does(run, export, tmp_path):
    card = read_model(handed_over(run, export, tmp_path))[1]
    assert card.version == "1.0.0"
    assert card.training_data == {"Clinic": {"images": 6, "licences": {"CC0": 8}}}
    assert card.training_data_sha256 == "f" * 64
    assert card.metrics["held-out patients"] == {"dice": 0.5}
    assert card.metrics["test"]["images"] == 2
    assert "train" not in card.metrics
    assert card.limitations


def test_a_registered_version_is_never_written_again(run, export, tmp_path):
    folder = handed_over(run, export, tmp_path)
    content = {name: (folder / name).read_bytes() for name in (WEIGHTS_FILE, CARD_FILE)}
    with pytest.raises(CheckpointError, match="raise --version"):
        handed_over(run, export, tmp_path)
    assert all((folder / name).read_bytes() == kept for name, kept in content.items())
    assert all((folder / name).stat().st_mode & 0o222 == 0 for name in content)
    assert handed_over(run, export, tmp_path, "1.0.1") != folder


def test_a_variant_has_a_name_and_a_directory_of_its_own(run, export, tmp_path):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    folder = register(run, table, {}, tmp_path / "models", "1.0.0", "MultiMix CC BY")
    assert folder.name == "multimix-cc-by-1.0.0"
    assert read_model(folder)[1].name == "MultiMix CC BY"


@pytest.mark.parametrize(
    ("name", "version"), [("../evil", "1"), ("", "1"), ("A\0", "1"), ("A", "1/2"), (".", "")]
)
def test_what_cannot_name_a_directory_is_refused(run, export, tmp_path, name, version):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    with pytest.raises(CheckpointError, match="cannot name a model directory"):
        register(run, table, {}, tmp_path / "models", version, name)


def test_limitations_are_those_of_the_sources():
    own = limitations_of(["Our hospital"])
    both = limitations_of(["Our hospital", "NIH ChestX-ray14"])
    assert len(both) == len(own) + 1
    assert "NIH" not in " ".join(own)


def test_a_run_without_a_model_is_refused(export, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        handed_over(tmp_path / "none", export, tmp_path)
    assert not (tmp_path / "models").exists()


def test_figures_are_rounded_wherever_they_stand():
    report = {"dice": 0.123456, "by_view": {"PA": {"images": 3, "dice": 1 / 3}}, "split": None}
    assert json.dumps(rounded(report)) == json.dumps(
        {"dice": 0.1235, "by_view": {"PA": {"images": 3, "dice": 0.3333}}, "split": None}
    )
