import csv
import io
import re
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dicom_io.errors import CheckpointError, TrainingError
from model.checkpoint import read_card, read_model
from model.config import TrainingConfig
from model.predictor import Predictor
from model.presets import TABLE_MODELS
from model.splits import divide_as_configured
from model.training import train
from tests.model.exports import write_export
from tests.model.films import film_table
from tests.model.runs import (
    SHORT,
    command_line,
    rows_of,
    run,
    short,
    state_hash,
    steps_done,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("model", TABLE_MODELS)
def test_every_table_model_trains_and_leaves_a_model_that_reads_films(table, tmp_path, model):
    run(table, short("paper", 'stages=[{"side":32,"steps":2}]', model=model), tmp_path)
    card = read_card(tmp_path / "model")
    assert card.input_side == 32
    assert card.network["bridge"] is TABLE_MODELS[model].bridge
    prediction = Predictor.load(tmp_path / "model").predict(table.images[0][::8, ::8])
    assert 0 <= prediction.probability <= 1


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(table, tmp_path, preset):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = short(preset, f"seed={seed}", 'stages=[{"side":32,"steps":3}]')
        run(table, config, tmp_path / name)
    assert state_hash(tmp_path / "a") == state_hash(tmp_path / "b")
    assert state_hash(tmp_path / "a") != state_hash(tmp_path / "c")
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_a_log_gets_a_line_now_and_then_with_rate_and_learning_rate(table, tmp_path):
    config = short("paper", 'stages=[{"side":32,"steps":45}]', "validate_every=100", model="enc")
    lines = [line for line in run(table, config, tmp_path).splitlines() if "images/s" in line]
    assert [line.split()[1] for line in lines] == ["20/45", "40/45", "45/45"]
    assert re.fullmatch(r"step 20/45  loss \d+\.\d+  lr 1?\S+  \d+\.\d images/s", lines[0])


def test_metrics_have_one_column_a_figure_and_one_row_a_validation(table, tmp_path):
    run(table, short("best"), tmp_path)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    expected = {"mean_dice", "mean_mask_ce", "mean_ce", "mean_pseudo", "mean_unlabelled_mask"}
    expected |= {"mean_pseudo_labelled"}
    expected |= {"dice", "iou", "auroc", "accuracy", "ece", "score", "learning_rate", "side"}
    assert expected <= set(rows[0])
    for row in rows:
        assert None not in row
        assert float(row["score"]) == pytest.approx(
            (float(row["dice"]) + float(row["auroc"])) / 2, abs=1e-5
        )
        dice, iou = float(row["dice"]), float(row["iou"])
        assert 0 <= iou <= dice <= 1


def test_tensorboard_gets_the_same_figures(table, tmp_path):
    run(table, short("paper", model="umtl"), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scores = [(event.step, event.value) for event in events.Scalars("held-out/score")]
    assert [step for step, _ in scores] == [2, 4, 6]
    assert [value for _, value in scores] == pytest.approx(
        [float(row["score"]) for row in rows_of(tmp_path)], abs=1e-5
    )
    assert {"train/mean_dice", "train/learning_rate"} <= set(events.Tags()["scalars"])


def test_a_model_is_served_at_the_size_it_has_learnt_at(table, tmp_path):
    config = short("best", 'stages=[{"side":32,"steps":4},{"side":48,"steps":4}]')
    run(table, config, tmp_path, minutes=0)
    assert steps_done(tmp_path) == 1, "stopped in the first stage"
    assert read_card(tmp_path / "model").input_side == 32


@pytest.mark.parametrize(
    ("preset", "first", "last", "better"), [("best", 32, 96, 96), ("paper", 64, 32, 64)]
)
def test_the_kept_model_is_the_best_of_all_stages_and_its_weights_are_the_teachers(
    table, tmp_path, preset, first, last, better
):
    stages = f'stages=[{{"side":{first},"steps":3}},{{"side":{last},"steps":3}}]'
    run(table, short(preset, stages, "validate_every=1", "learning_rate=1e-3"), tmp_path)
    rows = rows_of(tmp_path)
    best = max(rows, key=lambda row: (float(row["score"]), int(row["step"])))
    network, card = read_model(tmp_path / "model")
    assert card.input_side == int(best["side"]) == better
    assert card.metrics["held-out patients"]["score"] == pytest.approx(
        float(best["score"]), abs=1e-4
    )
    saved = load_file(next((tmp_path / "state").glob("*.safetensors")))
    weight = network.state_dict()["classifier.weight"]
    is_last = torch.equal(saved["teacher.classifier.weight"].half().float(), weight)
    assert is_last == (best is rows[-1])
    assert not torch.equal(saved["student.classifier.weight"].half().float(), weight)


def test_labelled_images_fewer_than_a_batch_are_enough(table, tmp_path):
    config = short(
        "paper", "labels=2", "masks=1", "class_batch=5", "mask_batch=4",
        'stages=[{"side":32,"steps":2}]',
    )  # fmt: skip
    assert "2 labelled, 1 with masks" in run(table, config, tmp_path)
    assert steps_done(tmp_path) == 2


def test_weights_that_fly_off_end_the_run_and_are_not_kept(table, tmp_path):
    config = short("paper", "learning_rate=1e30", "validate_every=1", model="umtl")
    with pytest.raises(CheckpointError, match="lower the learning rate"):
        run(table, config, tmp_path)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "state").exists()


def test_the_card_counts_what_was_learnt_from_and_no_more(table, tmp_path):
    config = short("paper", "masks=3", 'stages=[{"side":32,"steps":1}]', model="unet")
    run(table, config, tmp_path)
    card = read_card(tmp_path / "model")
    assert card.training_data == {"A": 3}
    assert card.training_config["masks"] == 3


def test_a_task_without_annotations_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TrainingError, match="no training row has a usable label"):
        run(film_table(8, label=None), short("best"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_line_says_what_is_wrong_and_fails(tmp_path):
    missing = command_line("--data", tmp_path / "none", "--out", tmp_path / "run")
    assert missing.exit_code == 1
    assert "is no folder" in missing.output
    unknown = command_line("--data", tmp_path, "--out", tmp_path / "run", "--preset", "bset")
    assert unknown.exit_code == 1
    assert "unknown preset" in unknown.output
    nothing = command_line("--data", tmp_path, "--out", tmp_path / "run", "--resume")
    assert nothing.exit_code == 1
    assert "there is no run" in nothing.output


def test_a_process_that_is_not_the_first_tells_why_it_ends_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    ended = command_line("--data", tmp_path / "none", "--out", tmp_path / "run")
    assert ended.exit_code == 1
    assert ended.stderr == f"{tmp_path / 'none'} is no folder; --data takes an archive export\n"
    assert ended.stdout == ""


def test_what_needs_no_film_is_refused_before_the_exports_are_read(table, tmp_path):
    run(table, short("paper", 'stages=[{"side":32,"steps":1}]', model="enc"), tmp_path / "run")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text((tmp_path / "run" / "config.json").read_text())
    unread = ("--data", tmp_path / "no export")
    for arguments, told in (
        (("--out", tmp_path / "run"), "holds a run already"),
        (("--out", tmp_path / "old", "--resume"), "nothing to resume"),
        (("--out", tmp_path / "new", "--start-from", tmp_path / "none"), "cannot be read"),
    ):
        said = command_line(*unread, *arguments)
        assert said.exit_code == 1
        assert told in said.output
        assert "no export" not in said.output


def test_an_archive_export_becomes_a_model_on_the_command_line(tmp_path):
    export = write_export(tmp_path, 12)
    options = (
        "--data", export, "--cache", tmp_path / "cache", "--out", tmp_path / "run",
        "--device", "cpu", "--version", "5",
    )  # fmt: skip
    settings = (
        "--preset", "paper", "--model", "umtls", "--labels", "4", "--masks", "3",
        *(part for override in SHORT for part in ("--set", override)),
    )  # fmt: skip
    result = command_line(*options, *settings)
    assert result.exit_code == 0, result.output
    assert all(f"'{name}': " in result.output for name in TrainingConfig.model_fields)
    assert "'class_batch': 2" in result.output
    assert "reading export" in result.stderr
    assert "4 labelled, 3 with masks" in result.output
    card = read_card(tmp_path / "run" / "model")
    assert card.version == "5"
    assert (card.training_config["labels"], card.training_config["masks"]) == (4, 3)
    again = command_line(*options, "--resume")
    assert again.exit_code == 0, again.output
    overwritten = command_line(*options, *settings)
    assert overwritten.exit_code == 1
    assert "--resume goes on with it" in overwritten.output


def test_a_toml_file_of_settings_is_taken_on_the_command_line(tmp_path):
    export = write_export(tmp_path, 12)
    file = tmp_path / "run.toml"
    file.write_text("class_batch = 3\nlabels = 4\n[tasks]\nsegment = false\n")
    common = ("--data", export, "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    settings = [part for override in SHORT[1:2] + SHORT[3:] for part in ("--set", override)]
    short_stage = ("--set", 'stages=[{"side":32,"steps":1}]')
    table_model = ("--preset", "paper", "--model", "umtl")
    result = command_line(*common, *table_model, "--config", file, *settings, *short_stage)
    assert result.exit_code == 0, result.output
    stored = read_card(tmp_path / "run" / "model").training_config
    assert (stored["class_batch"], stored["labels"], stored["mask_batch"]) == (3, 4, 2)
    assert stored["tasks"] == TABLE_MODELS["enc"].model_dump()
    file.write_text("clas_batch = 3\n")
    wrong = command_line(*common, "--config", file)
    assert wrong.exit_code == 1
    assert "unknown training setting clas_batch; did you mean class_batch?" in wrong.output


def test_a_terminal_gets_a_bar_with_loss_and_rate(table, tmp_path):
    printed = io.StringIO()
    config = short("paper", 'stages=[{"side":32,"steps":3}]', "validate_every=100", model="enc")
    console = Console(file=printed, width=120, force_terminal=True)
    train(table, config, tmp_path, version="1", console=console)
    bar = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.getvalue())
    assert re.search(r"training ━+ 3/3  loss \d+\.\d+  lr \S+  \d+\.\d images/s", bar)
    assert "step 3/3" not in bar


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_keeps_the_problems_of_its_exports_for_its_owner_alone(table, tmp_path, resume):
    settings = short("paper", 'stages=[{"side":32,"steps":1}]')
    path = tmp_path / "problems.csv"
    if resume:
        run(table, settings, tmp_path)
        path.chmod(0o644)
    broken = replace(table, problems=(("/export/Doe, J.dcm", "truncated"),))
    run(broken, settings, tmp_path, resume=resume)
    lines = list(csv.reader(path.read_text().splitlines()))
    assert lines == [["path", "reason"], ["/export/Doe, J.dcm", "truncated"]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_run_keeps_its_splits_and_goes_on_with_no_others(table, tmp_path):
    run(table, short("paper", 'stages=[{"side":32,"steps":2}]'), tmp_path)
    splits = tmp_path / "splits.csv"
    assert len(splits.read_text().splitlines()) == 1 + len(table.records)
    splits.write_text(splits.read_text().replace("validation", "train"))
    with pytest.raises(TrainingError, match="used otherwise"):
        run(table, short("paper", 'stages=[{"side":32,"steps":2}]'), tmp_path, resume=True)


@pytest.mark.parametrize("annotation", ["label", "mask"])
def test_a_run_is_not_gone_on_with_when_what_chooses_its_model_has_changed(
    table, tmp_path, annotation
):
    config = short("best", 'stages=[{"side":32,"steps":4}]')
    run(table, config, tmp_path, minutes=0)
    [row] = divide_as_configured(table.records, config).validation[:1]
    records, masks = list(table.records), np.array(table.masks)
    if annotation == "mask":
        masks[row] = 1 - masks[row]
    else:
        other = {"normal": "pneumonia", "pneumonia": "normal"}[records[row].label]
        records[row] = replace(records[row], label=other)
    corrected = replace(table, records=tuple(records), masks=masks)
    with pytest.raises(TrainingError, match=r"held out of the run .* have changed"):
        run(corrected, config, tmp_path, resume=True)
    run(table, config, tmp_path, resume=True)
    assert steps_done(tmp_path) == 4
