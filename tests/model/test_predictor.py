from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.special import expit

from dicom_io.errors import CheckpointError
from model.checkpoint import Calibration, ModelCard, write_model
from model.network import MultiMixNetwork, NetworkShape, as_network_input
from model.predictor import Predictor, clean_lung_probability, readable_saliency
from tests.model.films import draw_film

SHAPE = NetworkShape(channels=(8, 8, 8, 8, 8), bridge_scale="per_image")


def network():
    torch.manual_seed(0)
    return MultiMixNetwork(SHAPE)


def predictor(**calibration):
    card = ModelCard(version="1", network={}, calibration=Calibration(**calibration))
    return Predictor(network(), card)


def films(count=3, side=64):
    step = 256 // side
    return np.stack(
        [draw_film(n, pneumonia=bool(n % 2)).image_hw[::step, ::step] for n in range(count)]
    )


def test_every_answer_is_within_its_range():
    prediction = predictor().predict(films()[0])
    assert 0 <= prediction.probability <= 1
    for map_hw in (prediction.lung_probability_hw, prediction.saliency_hw):
        assert map_hw.shape == (64, 64)
        assert map_hw.dtype == np.float32
        assert 0 <= map_hw.min() <= map_hw.max() <= 1


def test_films_together_get_the_answers_they_get_alone():
    reader = predictor()
    for together, film in zip(reader.predict_batch(films()), films(), strict=True):
        alone = reader.predict(film)
        assert together.probability == pytest.approx(alone.probability, abs=1e-5)
        np.testing.assert_allclose(together.saliency_hw, alone.saliency_hw, atol=1e-3)
        np.testing.assert_allclose(
            together.lung_probability_hw, alone.lung_probability_hw, atol=1e-3
        )


def test_reading_a_film_twice_gives_the_same_bits():
    reader = predictor()
    first, second = reader.predict(films()[0]), reader.predict(films()[0])
    assert first.probability == second.probability
    assert np.array_equal(first.lung_probability_hw, second.lung_probability_hw)
    assert np.array_equal(first.saliency_hw, second.saliency_hw)


def test_threads_that_share_a_predictor_get_the_same_answers():
    reader, batch = predictor(), films(6)
    expected = [reader.predict(film).probability for film in batch]
    with ThreadPoolExecutor(4) as threads:
        found = [p.probability for p in threads.map(reader.predict, batch)]
    assert found == expected


def test_the_probability_is_the_calibrated_margin():
    film = films()[:1]
    with torch.no_grad():
        logits = network().eval()(as_network_input(torch.from_numpy(film)), masks=False).logits
    margin = float(logits[0, 1] - logits[0, 0])
    found = predictor(scale=3.0, offset=-0.5).predict(film[0]).probability
    assert found == pytest.approx(float(expit(3 * margin - 0.5)), abs=1e-5)


def test_the_verdict_turns_at_the_operating_point():
    film = films()[0]
    probability = predictor().predict(film).probability
    assert predictor(operating_point=probability).predict(film).is_pneumonia
    above = float(np.nextafter(probability, 1))
    assert not predictor(operating_point=above).predict(film).is_pneumonia


def test_a_model_directory_can_be_loaded_and_a_missing_one_is_refused(tmp_path):
    card = ModelCard(version="1", network={})
    write_model(tmp_path / "model", network(), card)
    loaded = Predictor.load(tmp_path / "model")
    expected = predictor().predict(films()[0]).probability
    assert loaded.predict(films()[0]).probability == pytest.approx(expected, abs=1e-3)
    with pytest.raises(CheckpointError):
        Predictor.load(tmp_path / "none")


def lungs():
    probability_hw = np.full((64, 64), 0.1, dtype=np.float32)
    probability_hw[10:50, 5:25] = 0.9
    probability_hw[10:50, 40:60] = 0.8
    return probability_hw


def test_specks_are_removed_and_both_lungs_stay():
    probability_hw = lungs()
    probability_hw[60:62, 30:32] = 0.99
    cleaned = clean_lung_probability(probability_hw)
    assert cleaned[61, 31] == 0
    np.testing.assert_array_equal(cleaned[:60], lungs()[:60])


def test_a_lobe_cut_off_by_an_opacity_stays():
    probability_hw = lungs()
    probability_hw[35:38, 5:25] = 0.2
    assert clean_lung_probability(probability_hw)[45, 10] == np.float32(0.9)


def test_holes_within_a_lung_are_filled():
    probability_hw = lungs()
    probability_hw[20:24, 10:14] = 0.2
    assert (clean_lung_probability(probability_hw)[20:24, 10:14] == 1).all()


def test_a_map_without_lungs_stays_as_it_is():
    nothing = np.full((32, 32), 0.2, dtype=np.float32)
    assert clean_lung_probability(nothing) is nothing


def test_cleaning_leaves_its_input_alone():
    probability_hw = lungs()
    probability_hw[60:62, 30:32] = 0.99
    before = probability_hw.copy()
    clean_lung_probability(probability_hw)
    np.testing.assert_array_equal(probability_hw, before)


def test_readable_saliency_is_brightest_where_gradients_gather():
    gradient_hw = np.abs(np.random.default_rng(0).normal(0, 1, (64, 64))).astype(np.float32)
    gradient_hw[40:50, 10:20] *= 20
    readable = readable_saliency(gradient_hw)
    row, column = np.unravel_index(readable.argmax(), readable.shape)
    assert 38 <= row <= 52
    assert 8 <= column <= 22
    assert readable.max() == 1


def test_no_gradient_gives_a_black_map():
    assert not readable_saliency(np.zeros((16, 16), dtype=np.float32)).any()
