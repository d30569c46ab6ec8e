import json

import pytest
import torch

from dicom_io.errors import TrainingError
from model.checkpoint import read_card, read_model
from tests.model.runs import SignalAt, run, short

ONE_STEP = 'stages=[{"side":32,"steps":1}]'


def test_a_run_begins_with_the_weights_of_a_model_and_its_card_says_so(table, tmp_path):
    run(table, short(), tmp_path / "first")
    start = tmp_path / "first" / "model"
    config = short("best", ONE_STEP, "learning_rate=1e-9", "seed=5")
    run(table, config, tmp_path / "second", start_from=start)
    (before, earlier), (after, card) = read_model(start), read_model(tmp_path / "second" / "model")
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    began_with = card.training_config["began_with"]
    assert began_with["weights_sha256"] == earlier.weights_sha256
    assert json.dumps(began_with["training_config"]) == json.dumps(read_card(start).training_config)


def test_a_run_that_holds_out_other_patients_than_its_beginning_says_so(table, tmp_path):
    run(table, short("best", ONE_STEP), tmp_path / "first")
    start = tmp_path / "first" / "model"
    alike, other = (
        run(table, short("best", ONE_STEP, f"seed={seed}"), tmp_path / f"{seed}", start_from=start)
        for seed in (0, 5)
    )
    assert "held out other patients" not in alike
    assert "held out other patients (its seed 0)" in other


def test_a_resumed_run_keeps_the_note_of_what_it_began_with(table, tmp_path):
    run(table, short("best", ONE_STEP), tmp_path / "first")
    run(table, short("best", ONE_STEP, "seed=1"), tmp_path / "other")
    start, out = tmp_path / "first" / "model", tmp_path / "second"
    config = short("best", 'stages=[{"side":32,"steps":4}]', "seed=5")
    said = run(table, config, out, start_from=start, printed=SignalAt("step 2 "))
    assert "stopped by a signal" in said
    other = tmp_path / "other" / "model"
    with pytest.raises(TrainingError, match=r"did not begin with .*other.*leave --start-from out"):
        run(table, config, out, resume=True, start_from=other)
    run(table, config, out, resume=True, start_from=start)
    began_with = read_card(out / "model").training_config["began_with"]
    assert began_with["weights_sha256"] == read_card(start).weights_sha256
    with pytest.raises(TrainingError, match="did not begin with"):
        run(
            table,
            short("best", ONE_STEP, "seed=1"),
            tmp_path / "other",
            resume=True,
            start_from=start,
        )


def test_a_run_that_adds_context_begins_with_the_answers_of_the_model_without(table, tmp_path):
    run(table, short("best", ONE_STEP, "context=false"), tmp_path / "first")
    start = tmp_path / "first" / "model"
    config = short("best", ONE_STEP, "context=true", "learning_rate=1e-9", "seed=5")
    run(table, config, tmp_path / "second", start_from=start)
    (without, _), (added, _) = read_model(start), read_model(tmp_path / "second" / "model")
    assert not without.shape.context
    assert added.shape.context
    films = torch.rand(2, 1, 64, 64) * 2 - 1
    torch.testing.assert_close(added(films).logits, without(films).logits, atol=1e-3, rtol=1e-2)
    with pytest.raises(TrainingError, match="another network"):  # what was learnt is not dropped
        run(
            table,
            short("best", ONE_STEP, "context=false"),
            tmp_path / "third",
            start_from=tmp_path / "second" / "model",
        )


@pytest.mark.parametrize(("before", "after"), [("group", "instance"), ("instance", "group")])
def test_a_run_with_another_norm_takes_over_every_filter(table, tmp_path, before, after):
    run(table, short("best", ONE_STEP, f"encoder_norm={before}"), tmp_path / "first")
    start = tmp_path / "first" / "model"
    config = short("best", ONE_STEP, f"encoder_norm={after}", "learning_rate=1e-9", "seed=5")
    run(table, config, tmp_path / "second", start_from=start)
    (first, _), (second, _) = read_model(start), read_model(tmp_path / "second" / "model")
    assert second.shape.encoder_norm == after
    filters = {name: value for name, value in first.state_dict().items() if value.ndim == 4}
    assert filters
    for name, value in filters.items():
        torch.testing.assert_close(second.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_a_run_does_not_begin_with_another_network(table, tmp_path):
    run(table, short("paper", ONE_STEP), tmp_path / "paper")
    with pytest.raises(TrainingError, match=r"dropout is 0\.25 there, 0\.1 here"):
        run(table, short("best", ONE_STEP), tmp_path / "x", start_from=tmp_path / "paper" / "model")
    assert not (tmp_path / "x").exists()
