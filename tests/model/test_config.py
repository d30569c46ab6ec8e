import json

import pytest

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.presets import BEST, PAPER, PRESETS, TABLE_MODELS, configure


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_without_changes_is_itself(preset):
    assert configure(preset) == PRESETS[preset]


def test_the_papers_preset_is_the_papers():
    assert (PAPER.pseudo_label_weight, PAPER.pseudo_label_threshold) == (0.25, 0.7)
    assert (PAPER.mask_weight, PAPER.unlabelled_mask_weight) == (5.0, 0.01)
    assert (PAPER.learning_rate, PAPER.weight_decay, PAPER.teacher_decay) == (1e-4, 0, 0)
    assert {PAPER.class_batch, PAPER.mask_batch, PAPER.unlabelled_batch} == {10}
    assert PAPER.stages[-1].side == 256
    assert PAPER.unlabelled_mask_term == "paired_kl"


def test_the_width_of_the_network_is_a_setting_like_any_other():
    narrow = configure("best", overrides=("channels=[8,16,32,64,128]",)).network_shape
    assert narrow.channels == (8, 16, 32, 64, 128)
    assert PAPER.network_shape.channels == (16, 32, 64, 128, 256)


def test_the_eight_table_models_are_eight_different_sets_of_switches():
    assert len({tasks.model_dump_json() for tasks in TABLE_MODELS.values()}) == 8
    for name, tasks in TABLE_MODELS.items():
        assert configure("paper", model=name).tasks == tasks


def test_a_bridge_appears_in_the_network_with_its_switch():
    assert configure("paper", model="umtls").network_shape.bridge
    assert not configure("paper", model="umtl").network_shape.bridge


def test_overrides_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("labels = 100\nmasks = 10\n")
    config = configure("best", file=file, overrides=("masks=50", "schedule=step"))
    assert (config.labels, config.masks, config.schedule) == (100, 50, "step")
    assert config.teacher_decay == BEST.teacher_decay


def test_a_file_may_turn_a_single_switch_of_a_table_model(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("[tasks]\nbridge = true\n")
    assert configure("paper", model="umtl", file=file).tasks == TABLE_MODELS["umtls"]


@pytest.mark.parametrize("override", ["tasks.bridge=true", 'tasks={"bridge":true}'])
def test_an_override_may_turn_a_single_switch_of_a_table_model(override):
    assert configure("paper", model="umtl", overrides=(override,)).tasks == TABLE_MODELS["umtls"]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("tasks.bridg=true",), "unknown training setting tasks.bridg; did you mean bridge"),
        (("task.bridge=true",), r"unknown training setting task\.bridge"),
        (("channels=[16,32,64,128,250]",), "channels"),
        (("learnin_rate=1",), "learnin_rate"),
        (("learnin_rate=1",), "did you mean learning_rate"),
        (("xyz=1",), "unknown training setting xyz; known are tasks, labels, masks"),
        (('stages=[{"side":64,"step":1}]',), "did you mean steps"),
        (('tasks={"bridg":true}',), "did you mean bridge"),
        (("learning_rate=-1",), "learning_rate"),
        (("learning_rate=fast",), "learning_rate"),
        (("labels=1",), "labels"),
        (("stages=[]",), "stages"),
        (('stages=[{"side":100,"steps":1}]',), "stages.0.side"),
        (('stages=[{"side":512,"steps":1}]',), "stages.0.side"),  # the cache holds 256
        (("seed=-1",), "seed"),
        (("seed=20261124000000",), "seed"),  # a million times as much is no seed of torch
        (("dropout",), "dropout"),
        (('tasks={"segment":false,"classify":false}',), "tasks"),
        (('tasks={"classify":false}',), "classify"),
        (('tasks={"segment":false}',), "segment"),
        (("strong_view=rand_augment",), "strong_view"),
        (("pseudo_label_threshold=1.5",), "threshold: .* less than or equal to 1, or .*adaptive"),
        (("learning_rate=Infinity",), "learning_rate"),
        (("largest_gradient_norm=Infinity",), "largest_gradient_norm"),
        (("dropout=0.999",), "dropout"),  # rounded to 256ths it would drop everything
        (("channels=[8,16,24,32,40]",), "context needs .* not 40"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(overrides, named):
    with pytest.raises(TrainingError, match=named):
        configure("best", overrides=overrides)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(TrainingError, match=r"bset.*paper, best"):
        configure("bset")
    with pytest.raises(TrainingError, match=r"unett.*umtl-ssl"):
        configure("best", model="unett")


def test_an_unreadable_file_is_refused_by_name(tmp_path):
    with pytest.raises(TrainingError, match=r"none\.toml"):
        configure("best", file=tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("labels = = 3")
    with pytest.raises(TrainingError, match=r"broken\.toml is no TOML"):
        configure("best", file=broken)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_stored_configuration_comes_back_as_it_was(preset):
    stored = json.loads(PRESETS[preset].model_dump_json())
    assert TrainingConfig.model_validate(stored) == PRESETS[preset]


def test_a_configuration_stored_before_a_setting_existed_gets_its_default():
    stored = json.loads(BEST.model_dump_json())
    del stored["patience"]
    assert TrainingConfig.model_validate(stored) == BEST


def test_each_step_has_the_side_of_its_stage():
    config = configure("best", overrides=('stages=[{"side":64,"steps":2},{"side":128,"steps":3}]',))
    assert config.total_steps == 5
    assert [config.side_at(step) for step in range(6)] == [64, 64, 128, 128, 128, 128]
