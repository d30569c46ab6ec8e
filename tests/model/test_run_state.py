import json
from dataclasses import asdict, replace

import pytest
import torch

from dicom_io.errors import TrainingError
from model.learner import new_learner
from model.presets import configure
from model.run_state import TrainingState, read_state, write_state

CPU = torch.device("cpu")


def learner(seed=0, preset="best"):
    config = configure(preset, overrides=(f"seed={seed}",))
    made = new_learner(config, CPU)
    for parameter in made.network.parameters():
        parameter.grad = torch.rand_like(parameter)
    made.optimizer.step()
    return made


def tensors(made):
    yield from made.network.state_dict().values()
    yield from made.teacher.state_dict().values()
    for _, moments in sorted(made.optimizer.state_dict()["state"].items()):
        yield from (moments[name] for name in sorted(moments))


def test_a_learner_comes_back_to_the_last_bit(tmp_path):
    saved, other = learner(0), learner(1)
    state = TrainingState(step=7, best_score=0.5, seconds=3.5, loss_sums={"ce": 0.1 + 0.2})
    write_state(tmp_path, state, saved)
    assert read_state(tmp_path, other) == state
    for one, two in zip(tensors(saved), tensors(other), strict=True):
        assert torch.equal(one, two)


def test_a_run_without_a_best_score_yet_comes_back(tmp_path):
    write_state(tmp_path, TrainingState(), learner())
    assert read_state(tmp_path, learner(1)).best_score == float("-inf")


def test_only_the_newest_state_is_kept(tmp_path):
    for step in (1, 2):
        write_state(tmp_path, TrainingState(step=step), learner())
    assert {path.name for path in tmp_path.iterdir()} == {"state.json", "step-2.safetensors"}


def test_a_state_saved_before_early_stopping_existed_can_be_resumed(tmp_path):
    write_state(tmp_path, TrainingState(step=500, best_score=0.9, seconds=60.0), learner())
    content = json.loads((tmp_path / "state.json").read_text())
    older = {name: content[name] for name in ("step", "best_score", "seconds", "weights")}
    (tmp_path / "state.json").write_text(json.dumps(older))
    assert read_state(tmp_path, learner()).step == 500


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(TrainingError, match="start without --resume"):
        read_state(tmp_path / "none", learner())


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weights": "gone.safetensors"}', '{"weights": 3}']
)
def test_a_damaged_state_is_refused(tmp_path, content):
    write_state(tmp_path, TrainingState(step=1), learner())
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(TrainingError, match="damaged"):
        read_state(tmp_path, learner())


def test_cut_off_weights_are_refused(tmp_path):
    write_state(tmp_path, TrainingState(step=1), learner())
    weights = tmp_path / "step-1.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(TrainingError, match="damaged"):
        read_state(tmp_path, learner())


def test_the_state_of_another_network_is_refused(tmp_path):
    write_state(tmp_path, TrainingState(step=1), learner(preset="best"))
    with pytest.raises(TrainingError, match="another network"):
        read_state(tmp_path, learner(preset="paper"))


def test_a_steps_figures_are_averaged_over_the_steps_since_the_last_validation():
    state = TrainingState()
    for ce in (1.0, 2.0, 6.0):
        state = state.after_step({"ce": ce}, seconds=1.0)
    assert state.step == 3
    assert state.means == {"ce": 3.0}
    assert state.after_validation(0.5, 128).means == {}


def test_the_best_model_is_the_best_of_all_image_sides_and_of_equals_the_later():
    first = TrainingState().after_validation(0.9, 128)
    assert first.is_best(0.9)
    assert not first.is_best(0.8)
    larger = first.after_validation(0.5, 256)
    assert not larger.is_best(0.8), "a worse model of more pixels does not replace a better one"
    assert larger.is_best(0.91)


def test_patience_counts_anew_at_a_new_image_side():
    state = TrainingState().after_validation(0.9, 128).after_validation(0.8, 128)
    larger = state.after_validation(0.5, 256)
    assert larger.validations_since_gain == 0
    assert larger.after_validation(0.6, 256).validations_since_gain == 0
    assert larger.after_validation(0.4, 256).validations_since_gain == 1


def test_scores_of_a_state_from_before_all_sides_were_scored_on_one_grid_do_not_count(tmp_path):
    write_state(tmp_path, TrainingState(step=500, best_score=0.95, due_score=0.95), learner())
    content = json.loads((tmp_path / "state.json").read_text())
    del content["due_side"]
    (tmp_path / "state.json").write_text(json.dumps(content | {"best_side": 128}))
    assert read_state(tmp_path, learner()).is_best(0.9)


def test_validations_without_a_gain_are_counted():
    state = TrainingState().after_validation(0.5, 32)
    for score in (0.4, 0.5, 0.3):
        state = state.after_validation(score, 32)
    assert state.validations_since_gain == 3
    assert state.after_validation(0.6, 32).validations_since_gain == 0
    assert asdict(state)["best_score"] == 0.5


def test_a_validation_that_is_not_due_decides_about_the_model_alone():
    state = TrainingState().after_step({"ce": 1.0}, 1.0).after_validation(0.5, 32)
    state = state.after_validation(0.4, 32).after_step({"ce": 2.0}, 2.0)
    assert state.after_extra_validation(0.5) == state
    better = state.after_extra_validation(0.7)
    assert better == replace(state, best_score=0.7)
    assert not better.is_best(0.6)
    assert better.after_validation(0.6, 32).validations_since_gain == 0
