from collections import Counter

import pytest
import torch

from model.presets import configure
from model.splits import divide
from model.streams import Stream, balanced_weights, make_streams, seeded
from tests.model.films import record


def stream(count=10, batch=4, weights=None, seed=0):
    return Stream(tuple(range(100, 100 + count)), weights, batch, seed)


def test_one_pass_draws_every_row_once():
    drawn = [row for step in range(5) for row in stream(20, 4).draw(step)]
    assert sorted(drawn) == list(range(100, 120))


def test_passes_join_without_a_gap_where_the_batch_does_not_divide_them():
    drawn = [row for step in range(10) for row in stream(10, 4).draw(step)]
    assert len(drawn) == 40
    for turn in range(4):
        assert sorted(drawn[turn * 10 : turn * 10 + 10]) == list(range(100, 110))


def test_every_pass_has_an_order_of_its_own():
    passes = {tuple(stream(12, 12).draw(step)) for step in range(6)}
    assert len(passes) == 6


def test_fewer_rows_than_a_batch_are_drawn_again():
    drawn = stream(3, 10).draw(0)
    assert len(drawn) == 10
    assert set(Counter(drawn).values()) <= {3, 4}


@pytest.mark.parametrize("weights", [None, (1.0,) * 10])
def test_a_draw_depends_on_seed_and_step_alone(weights):
    one = stream(weights=weights)
    later = [one.draw(step) for step in (5, 2, 9)]
    assert [stream(weights=weights).draw(step) for step in (5, 2, 9)] == later
    assert stream(weights=weights, seed=1).draw(5) != later[0]


def test_weights_decide_how_often_a_row_is_drawn():
    drawn = Counter(row for step in range(500) for row in stream(2, 4, (3.0, 1.0)).draw(step))
    assert drawn[100] / drawn[101] == pytest.approx(3, rel=0.15)


def test_balanced_weights_draw_both_classes_equally_within_a_source():
    records = [record(n, source="A" if n < 90 else "B") for n in range(100)]
    classes = [0] * 80 + [1] * 10 + [0] * 5 + [1] * 5
    weights = balanced_weights(range(100), records, classes=classes, source_exponent=0)
    shares = Counter()
    for row, weight in enumerate(weights):
        shares[records[row].source, classes[row]] += weight
    assert len({round(share, 9) for share in shares.values()}) == 1


def test_sources_are_drawn_by_size_to_the_exponent():
    records = [record(n, source="A" if n < 90 else "B") for n in range(100)]
    for exponent, ratio in ((1.0, 9.0), (0.5, 3.0), (0.0, 1.0)):
        weights = balanced_weights(range(100), records, classes=None, source_exponent=exponent)
        assert sum(weights[:90]) / sum(weights[90:]) == pytest.approx(ratio)


def made(model, preset="paper", **budgets):
    records = [record(n) for n in range(60)]
    pools = divide(records, labels=None, masks=budgets.get("masks"), validation_share=0.2, seed=0)
    return make_streams(records, pools, configure(preset, model=model)), pools


def test_only_the_streams_of_a_models_tasks_exist():
    for model, parts in (
        ("unet", (False, True, False)),
        ("enc", (True, False, False)),
        ("encssl", (True, False, True)),
        ("multimix", (True, True, True)),
    ):
        streams, _ = made(model)
        found = (streams.labelled, streams.masked, streams.unlabelled)
        assert tuple(s is not None for s in found) == parts, model


def test_a_model_without_unlabelled_images_learns_from_annotated_rows_alone():
    streams, pools = made("unet", masks=5)
    assert streams.rows == sorted(pools.masked)
    everything, pools = made("multimix", masks=5)
    assert everything.rows == sorted(pools.unlabelled)


def test_two_views_of_an_unlabelled_image_count_as_two_images():
    assert made("unet")[0].images_per_step == 10
    assert made("umtl-ssl")[0].images_per_step == 40
    assert made("multimix")[0].images_per_step == 50, "the paper's five batches"


def test_masks_are_compared_with_a_batch_of_its_own_where_views_are_not_compared():
    assert made("umtl-ssl")[0].unmasked is None
    streams, _ = made("multimix")
    assert streams.unmasked is not None
    assert streams.unmasked.rows == streams.unlabelled.rows
    assert streams.unmasked.draw(0) != streams.unlabelled.draw(0)
    assert made("multimix", preset="best")[0].unmasked is None


def test_generators_of_different_numbers_differ():
    first = {float(torch.rand(1, generator=seeded(*parts))) for parts in ((0, 1), (1, 0), (1, 1))}
    assert len(first) == 3
    assert torch.equal(torch.rand(4, generator=seeded(2, 3)), torch.rand(4, generator=seeded(2, 3)))
