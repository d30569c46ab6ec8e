import hashlib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread
from safetensors.numpy import save

from dicom_io.errors import CheckpointError
from dicom_io.pixels import decode, network_image
from model import SHIPPED_MODEL
from model.checkpoint import ModelCard, write_model
from model.config import TrainingConfig
from model.gate import GATE_FILE, GateCard, read_gate, write_gate
from model.gate_fitting import film_features, fit_gate, gate_of, highest_usual_score
from model.image_table import ImageTable
from model.network import MultiMixNetwork, NetworkShape
from model.predictor import Predictor
from model.register import register
from model.run_folder import write_config
from model.splits import divide, divide_as_configured
from model.streams import make_streams
from tests.model.films import draw_film, record

SIDE = 64
FILMS = Path("../shared/data/dicom")
NO_CHEST = ("extremity", "hip", "dental")


def film_images(count: int, first: int = 0) -> np.ndarray:
    films = [draw_film(first + n, pneumonia=bool(n % 2)).image_hw for n in range(count)]
    return np.stack(films)[:, ::4, ::4]


def table_of(images: np.ndarray, **facts: object) -> ImageTable:
    records = tuple(record(number, **facts) for number in range(len(images)))
    return ImageTable(records, images, np.zeros((len(images), 256, 256), np.uint8), ())


def pools_of(table: ImageTable):
    return divide(table.records, labels=None, masks=None, validation_share=0.2, seed=0)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MultiMixNetwork(NetworkShape(channels=(8, 8, 16, 16, 32), encoder_norm="group")).eval()


@pytest.fixture(scope="module")
def fitted(network):
    table = table_of(film_images(320))
    found = fit_gate(network, table, pools_of(table), SIDE)
    assert found is not None
    return found


def share_refused(network, fitted, images) -> float:
    gate, card = fitted
    rows = range(len(images))
    scores = gate.scores(film_features(network, table_of(images), rows, SIDE))
    return float((scores > card.threshold).mean())


def test_new_films_of_the_same_kind_pass(network, fitted):
    assert share_refused(network, fitted, film_images(100, first=1000)) <= 0.05


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda films: 255 - films, id="inverted"),
        pytest.param(lambda films: np.rot90(films, 1, (1, 2)), id="lying on the side"),
        pytest.param(lambda films: np.zeros_like(films), id="black"),
        pytest.param(
            lambda films: np.random.default_rng(0).integers(0, 256, films.shape, dtype=np.uint8),
            id="noise",
        ),
    ],
)
def test_other_images_are_refused(network, fitted, other):
    images = np.ascontiguousarray(other(film_images(40, first=2000)))
    assert share_refused(network, fitted, images) >= 0.95


def test_features_that_are_no_numbers_are_as_unlike_as_can_be(fitted):
    features = np.full((1, len(fitted[0].centre)), np.nan)
    assert fitted[0].scores(features) == [np.inf]


def test_a_score_grows_with_the_distance_in_every_direction():
    random = np.random.default_rng(0)
    cloud = random.normal(size=(400, 6)) * [1, 2, 3, 4, 5, 6]
    gate = gate_of(cloud)
    for _ in range(20):
        direction = random.normal(size=6) * cloud.std(0)
        near, far = gate.scores(cloud.mean(0) + np.outer([3, 30], direction))
        assert far > 50 * near


def test_of_every_source_nearly_all_held_out_films_pass(network):
    images = np.concatenate([film_images(300), np.clip(film_images(200) * 0.6 + 90, 0, 255)])
    sources = ["A"] * 300 + ["B"] * 200
    records = tuple(record(n, source=source) for n, source in enumerate(sources))
    table = ImageTable(records, images.astype(np.uint8), np.zeros_like(images), ())
    pools = pools_of(table)
    gate, card = fit_gate(network, table, pools, SIDE)
    for source in "AB":
        rows = [row for row in pools.validation if records[row].source == source]
        scores = gate.scores(film_features(network, table, rows, SIDE))
        assert (scores <= card.threshold).mean() >= 0.95


def test_the_threshold_leaves_room_for_films_that_were_not_among_a_few():
    random = np.random.default_rng(0)
    refused = []
    for _ in range(200):
        films = np.exp(random.normal(0.7, 0.35, 25))
        threshold = highest_usual_score(films, ["A"] * len(films))
        refused.append((np.exp(random.normal(0.7, 0.35, 400)) > threshold).mean())
    assert np.mean(refused) <= 0.012  # the highest of 25 would refuse 4 %
    assert threshold < 30


def test_too_few_films_make_no_gate(network):
    table = table_of(film_images(60))
    assert fit_gate(network, table, pools_of(table), SIDE) is None


def test_a_gate_reads_back_as_written(tmp_path, fitted):
    gate, card = fitted
    card = write_gate(tmp_path, gate, card)
    features = np.random.default_rng(0).normal(size=(5, len(gate.centre)))
    assert np.array_equal(read_gate(tmp_path, card).scores(features), gate.scores(features))


def test_a_damaged_gate_is_refused(tmp_path, fitted):
    card = write_gate(tmp_path, *fitted)
    content = bytearray((tmp_path / GATE_FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / GATE_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256 is"):
        read_gate(tmp_path, card)
    (tmp_path / GATE_FILE).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_gate(tmp_path, card)


@pytest.mark.parametrize(
    "damage",
    [
        {"centre": np.zeros(3)},
        {"directions": np.zeros((2, 3))},
        {"rest_variance": np.zeros(1)},
        {"spread": np.full(16, np.nan)},
        {"centre": np.full((1, 16), 0.5)},
    ],
)
def test_a_gate_whose_parts_do_not_fit_together_is_refused(tmp_path, damage):
    parts = {
        "centre": np.zeros(16),
        "spread": np.ones(16),
        "directions": np.eye(16)[:2],
        "variances": np.ones(2),
        "rest_variance": np.ones(1),
    }
    content = save(parts | damage)
    (tmp_path / GATE_FILE).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    with pytest.raises(CheckpointError, match="is no gate of this version"):
        read_gate(tmp_path, GateCard(threshold=1, fitted_on=1, held_out=1, sha256=sha256))


def test_a_model_with_the_gate_of_another_network_is_refused(tmp_path, fitted):
    narrow = MultiMixNetwork(NetworkShape(channels=(8, 8, 8, 8, 8)))
    card = ModelCard(version="1", network={}, gate=write_gate(tmp_path, *fitted))
    write_model(tmp_path, narrow, card)
    with pytest.raises(CheckpointError, match=r"gate in .* is of another network"):
        Predictor.load(tmp_path)


@pytest.fixture(scope="module")
def shipped():
    predictor = Predictor.load(SHIPPED_MODEL)
    assert predictor.card.gate is not None
    return predictor


def test_a_negative_is_refused_even_by_a_gate_that_is_wide_enough_for_it(network, fitted):
    gate, card = fitted
    wide = ModelCard(
        version="0",
        network={},
        input_side=SIDE,
        gate=card.model_copy(update={"threshold": 1e9}),
    )
    predictor = Predictor(network, wide, gate=gate)
    films = film_images(20, first=3000)
    assert not any(read.is_unlike_training for read in predictor.predict_batch(films))
    assert all(read.is_unlike_training for read in predictor.predict_batch(255 - films))


@pytest.mark.skipif(not FILMS.is_dir(), reason="the real films are not here")
def test_the_shipped_model_refuses_other_body_parts_and_reads_chests(shipped):
    for path in sorted(FILMS.glob("*.dcm")):
        film_hw = network_image(decode(dcmread(path)), shipped.card.input_side)
        is_chest = not path.name.startswith(NO_CHEST)
        assert shipped.predict(film_hw).is_unlike_training is not is_chest, path.name
        if is_chest:
            assert shipped.predict(255 - film_hw).is_unlike_training, f"{path.name}, inverted"


def test_the_shipped_model_refuses_photographs_and_noise(shipped):
    side = shipped.card.input_side
    photograph = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(photograph) as picture:
        grey_hw = np.asarray(picture.convert("L").resize((side, side)))
    noise_hw = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    flat_hw = np.full((side, side), 128, dtype=np.uint8)
    for image_hw in (grey_hw, noise_hw, flat_hw):
        assert shipped.predict(image_hw).is_unlike_training


def test_a_registered_model_refuses_by_its_gate(tmp_path, network):
    table = table_of(film_images(320))
    config = TrainingConfig(validation_share=0.2)
    pools = divide_as_configured(table.records, config)
    learnt = make_streams(table.records, pools, config).rows
    card = ModelCard(
        version="0",
        network={},
        input_side=SIDE,
        training_data_sha256=table.content_hash(learnt),
    )
    write_model(tmp_path / "run" / "model", network, card)
    write_config(tmp_path / "run", config)
    folder = register(tmp_path / "run", table, {}, tmp_path / "models", "1.0.0")
    predictor = Predictor.load(folder)
    film_hw = film_images(1, first=5000)[0]
    read, refused = predictor.predict(film_hw), predictor.predict(255 - film_hw)
    assert not read.is_unlike_training
    assert refused.is_unlike_training
    assert read.gate_score < predictor.card.gate.threshold < refused.gate_score
