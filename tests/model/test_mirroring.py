import numpy as np
import pytest
import torch

from model.checkpoint import ModelCard, read_card
from model.mirroring import MirrorAveraged, mirrored
from model.network import MultiMixNetwork, NetworkShape, as_network_input
from model.predictor import Predictor
from tests.model.films import draw_film, film_table
from tests.model.runs import run, short

SHAPE = NetworkShape(channels=(8, 8, 8, 8, 8), bridge_scale="per_image")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MultiMixNetwork(SHAPE).eval().requires_grad_(False)


def films():
    return as_network_input(
        torch.from_numpy(
            np.stack([draw_film(n, pneumonia=True).image_hw[::4, ::4] for n in range(3)])
        )
    )


def test_a_film_and_its_mirror_image_get_the_same_answer_mirrored(network):
    reader = MirrorAveraged(network)
    answer, of_mirrored = reader(films(), saliency=True), reader(mirrored(films()), saliency=True)
    torch.testing.assert_close(answer.logits, of_mirrored.logits)
    torch.testing.assert_close(answer.mask_logits, mirrored(of_mirrored.mask_logits))
    torch.testing.assert_close(answer.saliency, mirrored(of_mirrored.saliency))
    alone = network(films(), saliency=True)
    assert (alone.mask_logits - answer.mask_logits).abs().max() > 1e-3
    torch.testing.assert_close(answer.features, alone.features)


def test_the_answer_lies_between_those_to_the_film_and_to_its_mirror_image(network):
    answer = MirrorAveraged(network)(films(), saliency=True)
    one, other = network(films(), saliency=True), network(mirrored(films()), saliency=True)
    torch.testing.assert_close(answer.logits, (one.logits + other.logits) / 2)
    torch.testing.assert_close(
        answer.mask_logits, (one.mask_logits + mirrored(other.mask_logits)) / 2
    )
    torch.testing.assert_close(answer.saliency, (one.saliency + mirrored(other.saliency)) / 2)


def test_what_was_not_asked_for_is_not_there(network):
    answer = MirrorAveraged(network)(films(), masks=False)
    assert answer.mask_logits is None
    assert answer.saliency is None


def test_a_model_is_served_as_its_card_says(network):
    film = draw_film(1, pneumonia=True).image_hw[::4, ::4]
    one, other = (
        Predictor(network, ModelCard(version="1", network={})).predict(image_hw)
        for image_hw in (film, film[:, ::-1])
    )
    card = ModelCard(version="1", network={}, average_mirrored=True)
    averaged = Predictor(network, card).predict(film).probability
    lowest, highest = sorted((one.probability, other.probability))
    assert lowest < averaged < highest


def test_the_best_preset_averages_and_the_papers_does_not(tmp_path):
    one_step = 'stages=[{"side":32,"steps":1}]'
    for preset, averages in (("best", True), ("paper", False)):
        run(film_table(16), short(preset, one_step), tmp_path / preset)
        assert read_card(tmp_path / preset / "model").average_mirrored is averages
