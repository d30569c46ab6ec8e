import numpy as np
import pytest
import torch

from dicom_io.pixels import map_on_source
from model.metrics import auroc, score_mask
from model.network import MultiMixNetwork, NetworkShape
from model.predictor import margins
from model.presets import TABLE_MODELS
from model.splits import divide
from model.validation import validate
from tests.model.films import film_table

BOTH = TABLE_MODELS["umtl"]


@pytest.fixture(scope="module")
def table():
    return film_table(40)


@pytest.fixture(scope="module")
def pools(table):
    return divide(table.records, labels=None, masks=None, validation_share=0.4, seed=0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MultiMixNetwork(NetworkShape(channels=(8, 8, 8, 8, 8)))


def test_figures_are_those_of_held_out_rows_alone(table, pools, network):
    figures = validate(network, table, pools, BOTH, 32)
    rows = list(pools.validation)
    images, _ = table.tensors(rows, 32)
    with torch.no_grad():
        output = network.eval()(images)
    dices = [
        score_mask(map_on_source(p[0].numpy(), 256, 256) >= 0.5, table.masks[row] > 0).dice
        for p, row in zip(torch.sigmoid(output.mask_logits), rows, strict=True)
    ]
    area = auroc(margins(output.logits), np.array([pools.classes[row] for row in rows]))
    assert figures["dice"] == pytest.approx(np.mean(dices), abs=1e-3)
    assert figures["auroc"] == pytest.approx(area)
    assert figures["score"] == pytest.approx((figures["dice"] + figures["auroc"]) / 2)


def test_validating_twice_gives_the_same_figures_and_leaves_dropout_off(table, pools, network):
    first = validate(network.train(), table, pools, BOTH, 32)
    assert validate(network.train(), table, pools, BOTH, 32) == first
    assert not network.training


def test_a_task_that_is_not_learnt_does_not_decide_which_model_is_kept(table, pools, network):
    classifier = validate(network, table, pools, TABLE_MODELS["enc"], 32)
    assert "dice" not in classifier
    assert classifier["score"] == classifier["auroc"]
    segmenter = validate(network, table, pools, TABLE_MODELS["unet"], 32)
    assert "auroc" not in segmenter
    assert segmenter["score"] == segmenter["dice"]


def test_a_better_mask_scores_better(table, pools, network):
    with torch.no_grad():
        network.decoder.to_mask.weight.zero_()
        network.decoder.to_mask.bias.fill_(-5)
    nothing = validate(network, table, pools, BOTH, 32)
    assert nothing["dice"] == 0
    assert "hausdorff_px" not in nothing, "an empty mask has no distance"
    assert nothing["empty_masks"] == sum(table.records[row].has_mask for row in pools.validation)
    with torch.no_grad():
        network.decoder.to_mask.bias.fill_(5)
    assert validate(network, table, pools, BOTH, 32)["dice"] > 0.2


def test_nothing_held_out_gives_a_score_of_zero(table, network):
    pools = divide(table.records, labels=None, masks=None, validation_share=1e-9, seed=0)
    assert validate(network, table, pools, BOTH, 32) == {"score": 0.0}


def test_distances_in_mm_are_given_where_films_are_calibrated(pools, network):
    calibrated = film_table(40, pixel_spacing_mm=(0.25, 0.25))
    figures = validate(network, calibrated, pools, BOTH, 32)
    # Masks are scored on all 256 pixels of 0.25 mm, whatever side the network reads.
    assert figures["hausdorff_mm"] == pytest.approx(0.25 * figures["hausdorff_px"])
    assert 0 < figures["ssim"] < 1
