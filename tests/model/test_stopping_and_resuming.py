"""Runs that end early, and runs that go on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dicom_io.errors import TrainingError
from model.checkpoint import read_card, read_model
from model.config import TrainingConfig
from model.learner import learning_rate_at
from model.run_folder import append_row
from model.run_state import read_progress
from model.train import FIRST_VERSION, settings_to_resume, version_to_resume
from model.training import train
from tests.model.exports import write_export
from tests.model.films import film_table
from tests.model.runs import (
    SHORT,
    SignalAt,
    command_line,
    rows_of,
    run,
    short,
    state_hash,
    steps_done,
)

ROOT = Path(__file__).parents[2]


WITH_WARM_UP = 'stages=[{"side":32,"steps":3,"restores":true},{"side":32,"steps":3}]'


@pytest.mark.parametrize(
    ("preset", "settings"),
    [("paper", ()), ("best", ()), ("best", ("pseudo_label_threshold=adaptive", WITH_WARM_UP))],
)
@pytest.mark.parametrize(
    ("validate_every", "signal_at", "stops_at"), [(2, "step 2 ", 3), (1, "step 3 ", 4)]
)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    table, tmp_path, preset, settings, validate_every, signal_at, stops_at
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = short(preset, f"validate_every={validate_every}", *settings)
    run(table, config, whole)
    said = run(table, config, parts, printed=SignalAt(signal_at))
    assert f"stopped by a signal, at step {stops_at}" in said
    assert steps_done(parts) == stops_at
    run(table, config, parts, resume=True)
    assert steps_done(parts) == steps_done(whole) == 6
    assert state_hash(parts) == state_hash(whole)
    assert rows_of(parts) == rows_of(whole)
    assert read_card(parts / "model") == read_card(whole / "model")


def test_signal_handlers_are_put_back(table, tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run(table, short("paper", 'stages=[{"side":32,"steps":1}]', model="enc"), tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


LONG = ('stages=[{"side":32,"steps":100000}]', "validate_every=100000")
LONG_RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from model.training import train
from tests.model.films import film_table
from tests.model.runs import short
from tests.model.test_stopping_and_resuming import LONG
train(film_table(8), short("paper", *LONG, model="enc"), Path(sys.argv[1]), version="1")
"""


def test_sigterm_saves_the_state_and_ends_the_process_cleanly(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-u", "-c", LONG_RUN, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("step 20/100000"):
                process.terminate()
        assert process.wait(60) == 0, "".join(printed)
    stopped_at = int(re.search(r"stopped by a signal, at step (\d+)", printed[-1])[1])
    assert stopped_at >= 20
    assert steps_done(tmp_path) == stopped_at
    config = short("paper", *LONG, model="enc")
    run(film_table(8), config, tmp_path, resume=True, minutes=1e-9)
    assert steps_done(tmp_path) == stopped_at + 1


def test_a_time_limit_ends_the_run_with_a_model_and_a_state(table, tmp_path):
    config = short("paper", 'stages=[{"side":32,"steps":100000}]', "validate_every=100000")
    said = run(table, config, tmp_path, minutes=1e-9)
    assert "the time limit is reached, at step 1;" in said
    assert steps_done(tmp_path) == 1
    assert [row["step"] for row in rows_of(tmp_path)] == ["1"]
    read_model(tmp_path / "model")


def test_the_minutes_of_a_run_end_it_for_good_and_its_rate_has_fallen_by_then(table, tmp_path):
    endless = ('stages=[{"side":32,"steps":100000}]', "validate_every=100000")
    config = short("best", *endless, "minutes=0.05")
    said = run(table, config, tmp_path, minutes=1e-9)
    assert "the time limit is reached, at step 1;" in said
    said = run(table, config, tmp_path, resume=True)
    steps = steps_done(tmp_path)
    assert f"finished at step {steps}, after the run's 0.05 minutes" in said
    last_rate = float(rows_of(tmp_path)[-1]["learning_rate"])
    assert last_rate < learning_rate_at(config, steps - 1)
    assert read_progress(tmp_path / "state").seconds >= 3
    assert "finished" in run(table, config, tmp_path, resume=True)
    assert steps_done(tmp_path) == steps
    read_model(tmp_path / "model")


def test_a_run_without_a_gain_ends_when_its_patience_does(table, tmp_path):
    config = short(
        "paper",
        'stages=[{"side":32,"steps":4},{"side":48,"steps":100}]',
        "learning_rate=1e-30",
        "validate_every=1",
        "patience=2",
        "dropout=0",
        model="unet",
    )
    said = run(table, config, tmp_path)
    # Weights that do not move score alike: four validations of the first stage, the first of the
    # second, and two without a gain.
    assert "finished at step 7, no better for 2 validations; the model is in" in said
    again = run(table, config, tmp_path, resume=True)
    assert "finished at step 7" in again, "and takes no further step"
    assert len(rows_of(tmp_path)) == 7
    assert steps_done(tmp_path) == 7


STILL = ("learning_rate=1e-30", "dropout=0", "patience=2")
"""Weights that do not move score alike at every validation."""


def test_time_limits_do_not_use_up_the_patience_of_a_run(table, tmp_path):
    config = short(
        "paper", 'stages=[{"side":32,"steps":100}]', "validate_every=10", *STILL, model="unet"
    )
    run(table, config, tmp_path / "whole")
    for start in range(3):
        said = run(table, config, tmp_path / "parts", resume=start > 0, minutes=1e-9)
        assert f"the time limit is reached, at step {start + 1};" in said
    said = run(table, config, tmp_path / "parts", resume=True)
    assert "finished at step 30, no better for 2 validations" in said
    due = [row for row in rows_of(tmp_path / "parts") if int(row["step"]) >= 10]
    assert due == rows_of(tmp_path / "whole")


def test_patience_waits_for_the_last_stage_whatever_its_size(table, tmp_path):
    stages = 'stages=[{"side":32,"steps":5},{"side":48,"steps":1},{"side":32,"steps":20}]'
    config = short("paper", stages, "validate_every=1", *STILL, model="unet")
    assert "finished at step 9, no better" in run(table, config, tmp_path)


def test_patience_without_anything_to_score_is_refused(table, tmp_path):
    config = short("paper", "validation_share=1e-9", *STILL, model="unet")
    with pytest.raises(TrainingError, match="patience waits for a better score"):
        run(table, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_says_so_and_where_its_model_is(table, tmp_path):
    config = short("paper", 'stages=[{"side":32,"steps":1}]', model="enc")
    expected = f"finished all 1 steps; the model is in {tmp_path / 'model'}"
    assert expected in run(table, config, tmp_path)
    assert expected in run(table, config, tmp_path, resume=True)


def test_a_run_is_neither_overwritten_nor_resumed_on_other_data(table, tmp_path):
    config = short("paper", 'stages=[{"side":32,"steps":1}]', model="enc")
    run(table, config, tmp_path)
    with pytest.raises(TrainingError, match="holds a run already"):
        run(table, config, tmp_path)
    with pytest.raises(TrainingError, match="training data is not what"):
        run(film_table(18), config, tmp_path, resume=True)


def test_resuming_forgets_what_was_recorded_after_the_state_was_saved(table, tmp_path):
    config = short("paper", 'stages=[{"side":32,"steps":2}]', model="enc")
    run(table, config, tmp_path)
    before, rows = state_hash(tmp_path), rows_of(tmp_path)
    append_row(tmp_path / "metrics.csv", {"step": 3, "score": 0.5})
    run(table, config, tmp_path, resume=True)
    assert (state_hash(tmp_path), rows_of(tmp_path)) == (before, rows)


def test_a_resumed_run_keeps_its_configuration(table, tmp_path):
    stored = short("paper", model="enc")
    (tmp_path / "config.json").write_text(stored.model_dump_json())
    assert settings_to_resume(tmp_path, None, None, None, ()) == stored
    with pytest.raises(TrainingError, match=r"keeps its configuration.*class_batch"):
        settings_to_resume(tmp_path, "paper", "enc", None, ("seed=0",))
    with pytest.raises(TrainingError, match=r"configuration, but seed would change"):
        settings_to_resume(tmp_path, None, None, None, ("seed=9",))
    with pytest.raises(TrainingError, match=r"configuration, but tasks would change"):
        settings_to_resume(tmp_path, None, "unet", None, ())


def test_settings_that_change_nothing_may_be_given_again(tmp_path):
    stored = TrainingConfig(seed=3)
    (tmp_path / "config.json").write_text(stored.model_dump_json())
    assert settings_to_resume(tmp_path, "paper", None, None, ("seed=3",)) == stored
    assert settings_to_resume(tmp_path, None, "multimix", None, ("seed=3",)) == stored


def test_a_resumed_run_keeps_the_version_of_its_model(tmp_path):
    export = write_export(tmp_path, 12)
    common = ("--data", export, "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    settings = [part for override in SHORT for part in ("--set", override)]
    # A time limit of nothing ends the run after its first step, with a model.
    first = command_line(*common, *settings, "--version", "5", "--minutes", "0")
    assert first.exit_code == 0, first.output
    assert command_line(*common, "--resume").exit_code == 0
    assert steps_done(tmp_path / "run") == 6
    assert read_card(tmp_path / "run" / "model").version == "5"


def test_a_run_that_was_stopped_before_its_first_model_keeps_its_version(table, tmp_path):
    config = short("paper", 'stages=[{"side":32,"steps":24}]', "validate_every=24", model="enc")
    quiet = Console(file=SignalAt("step 20/24"), width=500)
    assert train(table, config, tmp_path, version="5", console=quiet) is None
    assert version_to_resume(tmp_path) == "5"
    # An earlier release did not store it.
    stored = json.loads((tmp_path / "state" / "state.json").read_text())
    (tmp_path / "state" / "state.json").write_text(json.dumps(stored | {"version": ""}))
    assert version_to_resume(tmp_path) == FIRST_VERSION
    run(table, config, tmp_path, resume=True)
    assert version_to_resume(tmp_path) == read_card(tmp_path / "model").version
