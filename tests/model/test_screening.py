from collections import Counter

import numpy as np
import pytest

from dicom_io.errors import TrainingError
from model.presets import BEST
from model.screening import (
    MOST_TECHNIQUES,
    RUNS,
    Technique,
    effects_on,
    plackett_burman,
    screening_runs,
)

TECHNIQUES = (
    Technique("bridge", {"tasks.bridge": True}, {"tasks.bridge": False}),
    Technique("scale", {"bridge_scale": "per_image"}, {"bridge_scale": "raw"}, within="bridge"),
    Technique("bend", {"bend": 0.05}, {"bend": 0.0}),
)


def outcomes(runs, noise=0.0, **effects):
    """What runs would come to if these were the effects; seeds differ by far more."""
    random = np.random.default_rng(4)
    return {
        run.number: 0.9
        + 0.05 * run.seed
        + sum(effect * run.levels[name] / 2 for name, effect in effects.items())
        + noise * float(random.normal())
        for run in runs
    }


def test_every_two_columns_of_the_design_agree_as_often_as_they_differ():
    design = plackett_burman().astype(int)
    assert design.shape == (RUNS, RUNS - 1)
    assert np.array_equal(design.T @ design, RUNS * np.eye(RUNS - 1))
    assert not design.sum(0).any()


def test_each_technique_is_on_in_half_of_the_runs_and_each_seed_in_a_quarter():
    runs = screening_runs(TECHNIQUES)
    assert Counter(run.levels["bend"] for run in runs) == {1: 12, -1: 12}
    assert Counter(run.seed for run in runs) == {1: 6, 2: 6, 3: 6, 4: 6}


def test_a_technique_is_off_where_what_it_builds_on_is():
    runs = screening_runs(TECHNIQUES)
    without = [run for run in runs if run.levels["bridge"] == -1]
    assert {run.levels["scale"] for run in without} == {0}
    assert all(run.config(BEST, TECHNIQUES).bridge_scale == "raw" for run in without)
    among_the_others = Counter(run.levels["scale"] for run in runs if run not in without)
    assert among_the_others == {1: 6, -1: 6}


def test_a_run_has_the_settings_of_its_levels_and_else_those_of_the_base():
    for run in screening_runs(TECHNIQUES):
        config = run.config(BEST, TECHNIQUES)
        assert config.tasks.bridge is (run.levels["bridge"] == 1)
        assert config.tasks.pseudo_labels
        assert config.bend == (0.05 if run.levels["bend"] == 1 else 0.0)
        assert config.seed == run.seed
        assert config.learning_rate == BEST.learning_rate


def test_effects_are_found_whatever_the_seeds_do():
    runs = screening_runs(TECHNIQUES)
    found = effects_on(outcomes(runs, noise=0.001, bridge=0.0, scale=-0.01, bend=0.02), runs)
    assert found["bend"].mean == pytest.approx(0.02, abs=found["bend"].margin)
    assert found["scale"].mean == pytest.approx(-0.01, abs=found["scale"].margin)
    assert found["bend"].is_told_from_chance
    assert found["scale"].is_told_from_chance
    assert 0 < found["bend"].margin < found["scale"].margin, "half as many runs speak of the scale"


def test_the_interval_holds_nothing_in_most_designs_without_any_effect():
    runs = screening_runs(TECHNIQUES)
    random = np.random.default_rng(0)
    told = 0
    for _ in range(200):
        noise = {run.number: float(random.normal()) for run in runs}
        told += effects_on(noise, runs)["bend"].is_told_from_chance
    assert 2 <= told <= 22, "about 5 in 100"


def test_runs_that_are_missing_cost_precision_and_too_many_the_answer():
    runs = screening_runs(TECHNIQUES)
    figures = outcomes(runs, noise=0.001, bend=0.02)
    some = {number: figure for number, figure in figures.items() if number < 16}
    few = {number: figure for number, figure in figures.items() if number < 5}
    assert effects_on(some, runs)["bend"].mean == pytest.approx(0.02, abs=0.003)
    assert effects_on(some, runs)["bend"].margin > effects_on(figures, runs)["bend"].margin
    assert effects_on(few, runs) == {}


def test_more_techniques_than_the_design_tells_apart_are_refused():
    many = [Technique(str(n), {"bend": 0.05}, {"bend": 0.0}) for n in range(MOST_TECHNIQUES + 1)]
    with pytest.raises(TrainingError, match="21 techniques at most"):
        screening_runs(many)


def test_a_technique_stands_after_the_one_it_builds_on():
    with pytest.raises(TrainingError, match="scale stands before bridge"):
        screening_runs([TECHNIQUES[1], TECHNIQUES[0]])


def test_a_misspelt_setting_of_a_technique_is_refused_by_name():
    wrong = (Technique("wrong", {"bent": 1}, {"bent": 0}),)
    with pytest.raises(TrainingError, match="did you mean bend"):
        screening_runs(wrong)[0].config(BEST, wrong)
