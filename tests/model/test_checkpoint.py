import ast
import hashlib
import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

import model
from dicom_io.errors import CheckpointError
from model import SHIPPED_MODEL
from model.checkpoint import (
    CARD_FILE,
    WEIGHTS_FILE,
    Calibration,
    ModelCard,
    read_card,
    read_model,
    unlearnt,
    write_model,
)
from model.network import MultiMixNetwork, NetworkShape

SHAPE = NetworkShape(
    channels=(8, 8, 8, 8, 8), encoder_norm="group", residual=True, bridge_scale="per_image"
)


@pytest.fixture
def written(tmp_path):
    torch.manual_seed(0)
    network = MultiMixNetwork(SHAPE)
    card = ModelCard(version="3", network={}, calibration=Calibration(scale=2, offset=-1))
    return tmp_path / "model", network, write_model(tmp_path / "model", network, card)


def rewrite_card(folder, **changes):
    content = json.loads((folder / CARD_FILE).read_text()) | changes
    (folder / CARD_FILE).write_text(json.dumps(content))


def test_every_shipped_model_can_be_read_and_has_a_version_of_its_own():
    # The UIDs of results are made from it: two models of one version would overwrite each other.
    folders = [path.parent for path in SHIPPED_MODEL.parent.glob(f"*/{CARD_FILE}")]
    versions = {read_model(folder)[1].version for folder in folders}
    assert len(versions) == len(folders) > 1


def test_a_model_comes_back_as_it_was_written_up_to_half_precision(written):
    folder, network, card = written
    read, read_back = read_model(folder)
    assert read_back.model_dump_json() == card.model_dump_json()
    assert read.shape == SHAPE
    assert not read.training
    for name, value in network.state_dict().items():
        assert torch.equal(read.state_dict()[name], value.half().float())
    film = torch.rand(1, 1, 32, 32)
    network.eval()
    torch.testing.assert_close(read(film).mask_logits, network(film).mask_logits, atol=5e-3, rtol=0)


def test_the_card_names_network_and_hash_of_the_weights(written):
    folder, _, card = written
    assert card.weights_sha256 == hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert card.network == asdict(SHAPE)
    assert card.version == "3"
    assert "research use only" in card.intended_use


def test_a_second_model_replaces_the_first_and_leaves_nothing_behind(written):
    folder, _, first = written
    torch.manual_seed(1)
    second = write_model(folder, MultiMixNetwork(SHAPE), ModelCard(version="4", network={}))
    assert second.weights_sha256 != first.weights_sha256
    assert read_model(folder)[1].model_dump_json() == second.model_dump_json()
    assert {path.name for path in folder.iterdir()} == {WEIGHTS_FILE, CARD_FILE}


def test_damaged_weights_are_refused_and_both_hashes_named(written):
    folder, _, card = written
    weights = bytearray((folder / WEIGHTS_FILE).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(weights)
    found = hashlib.sha256(weights).hexdigest()
    with pytest.raises(CheckpointError) as raised:
        read_model(folder)
    assert found in str(raised.value)
    assert card.weights_sha256 in str(raised.value)


def test_a_model_of_another_preprocessing_is_refused(written):
    folder, _, _ = written
    rewrite_card(folder, preprocessing_version="0")
    with pytest.raises(CheckpointError, match="trained with preprocessing 0"):
        read_model(folder)


def test_a_model_with_its_classes_the_other_way_round_is_refused(written):
    folder, _, _ = written
    rewrite_card(folder, classes=["pneumonia", "normal"])
    with pytest.raises(CheckpointError, match="apart"):
        read_card(folder)


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(written, name):
    folder, _, _ = written
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_model(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"version": "1"}',
        b'{"version": 1e999}',
        b"[" * 10**5,
    ],
)
def test_a_malformed_card_is_refused(written, content):
    folder, _, _ = written
    (folder / CARD_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="no model card"):
        read_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"unheard_of": 1},
        {"calibration": {"scale": -1}},
        {"calibration": {"offset": float("nan")}},
        {"gate": {"threshold": float("inf"), "fitted_on": 1, "held_out": 1, "sha256": ""}},
        {"input_side": 10**9},
        {"input_side": 100},
    ],
)
def test_a_card_with_values_out_of_range_is_refused(written, changes):
    folder, _, _ = written
    rewrite_card(folder, **changes)
    with pytest.raises(CheckpointError, match="no model card"):
        read_card(folder)


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"channels": [8, 8, 8]},
        {"channels": [8, 8, 8, 8, 16]},
        {"channels": "wide"},
        {"channels": [8, 8, 8, 8, -8]},
        {"channels": [8, 8, 8, 8, 10**30]},
        {"channels": [8, 8, 8, 10**7, 10**7]},  # would take petabytes
        {"encoder_norm": "batch"},
        {"bridge": "perhaps"},
    ],
)
def test_weights_that_do_not_fit_their_cards_network_are_refused(written, network):
    folder, _, _ = written
    rewrite_card(folder, network=(asdict(SHAPE) | network) if network else {})
    with pytest.raises(CheckpointError, match="does not fit"):
        read_model(folder)


def test_a_network_of_a_later_release_is_refused_though_its_weights_fit(written):
    folder, _, _ = written
    rewrite_card(folder, network=asdict(SHAPE) | {"sees_edges": True})
    with pytest.raises(CheckpointError, match="sees_edges, which this program does not know"):
        read_model(folder)


def rewrite_weights(folder, change):
    weights = save(
        {name: change(value) for name, value in load_file(folder / WEIGHTS_FILE).items()}
    )
    (folder / WEIGHTS_FILE).write_bytes(weights)
    rewrite_card(folder, weights_sha256=hashlib.sha256(weights).hexdigest())


def test_weights_that_are_no_numbers_are_neither_read_nor_written(written):
    folder, network, card = written
    with torch.no_grad():
        network.classifier.bias[0] = 1e30  # infinite in half precision
    with pytest.raises(CheckpointError, match="no numbers, or beyond half precision"):
        write_model(folder, network, card)
    assert read_model(folder)[1].model_dump_json() == card.model_dump_json()
    rewrite_weights(folder, lambda weight: weight * float("nan"))
    with pytest.raises(CheckpointError, match="weights that are no numbers"):
        read_model(folder)


def test_weights_of_another_kind_of_number_are_refused(written):
    folder, _, _ = written
    rewrite_weights(folder, lambda weight: weight.to(torch.int32))
    with pytest.raises(CheckpointError, match="does not fit"):
        read_model(folder)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_in_place_of_the_weights_is_not_opened(written, tmp_path, monkeypatch):
    folder, _, _ = written
    monkeypatch.chdir(tmp_path)
    payload = pickle.dumps(Bomb())
    (folder / WEIGHTS_FILE).write_bytes(payload)
    rewrite_card(folder, weights_sha256=hashlib.sha256(payload).hexdigest())
    with pytest.raises(CheckpointError):
        read_model(folder)
    assert not Path("exploded").exists()


def test_no_module_of_the_trainer_loads_a_pickle():
    for path in Path(model.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"pickle", "joblib", "dill", "cloudpickle", "marshal"}, path
        called = {
            f"{node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        assert not called & {"torch.load", "torch.save"}, path


def test_tasks_that_this_program_does_not_know_are_refused():
    card = ModelCard(version="1", network={}, training_config={"tasks": {"find_nodules": True}})
    with pytest.raises(CheckpointError, match="tells of other tasks"):
        unlearnt(card)
