import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from dicom_io.errors import TrainingError
from model.config import Stage
from model.image_table import ImageTable
from model.presets import configure
from model.reproduce import QUICK_SETTINGS, main
from tests.model.exports import manifest_row, write_export
from tests.model.films import film_table
from tests.model.grids import CELLS, films_of_elsewhere, films_to_learn_from, plan, reproduced
from tests.model.runs import SHORT, SignalAt, state_hash

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def learnt():
    return films_to_learn_from()


def test_every_row_is_trained_with_every_seed_and_scored_in_both_domains(learnt, tmp_path):
    other = films_of_elsewhere()
    grid = reproduced(plan(*CELLS, seeds=(1, 2)), tmp_path, learnt, other)
    assert [(r.cell, r.config.seed) for r in grid.results] == [
        (cell, seed) for seed in (1, 2) for cell in CELLS
    ]
    assert {r.figures["in-domain"]["images"] for r in grid.results} == {6}
    assert {r.figures["cross-domain"]["images"] for r in grid.results} == {8}
    assert {(r.labelled, r.masked) for r in grid.results[1:3]} == {(4, 2)}
    assert grid.results[0].figure("in-domain", "auroc") is None  # a U-Net has no opinion
    assert grid.results[1].figure("in-domain", "auroc") is not None
    page = (tmp_path / "table.md").read_text()
    assert "MultiMix against UMTL-SSL, 4 labels and 2 masks, cross-domain, AUROC" in page
    assert "8 Elsewhere without split" in page


def test_what_is_done_is_not_done_again(learnt, tmp_path):
    first = reproduced(plan(CELLS[0]), tmp_path, learnt)
    trained = state_hash(tmp_path / CELLS[0].name / "seed-1")
    printed = io.StringIO()
    again = reproduced(plan(*CELLS[:2]), tmp_path, learnt, printed=printed)
    assert again.results[0] == first.results[0]
    assert state_hash(tmp_path / CELLS[0].name / "seed-1") == trained
    assert printed.getvalue().count("held out") == 1  # one run began


def test_a_stopped_grid_goes_on_where_it_stopped(learnt, tmp_path):
    whole = reproduced(plan(*CELLS[1:]), tmp_path / "whole", learnt)
    with pytest.raises(TrainingError, match=r"stopped at step [2-5] of 6 of multimix"):
        # The second run is stopped by a real SIGTERM at its first validation.
        reproduced(plan(CELLS[2]), tmp_path / "stopped", learnt, printed=SignalAt("step 2"))
    resumed = reproduced(plan(*CELLS[1:]), tmp_path / "stopped", learnt)
    assert [r.figures for r in resumed.results] == [r.figures for r in whole.results]


def test_a_time_limit_ends_a_run_and_its_model_is_scored(learnt, tmp_path):
    grid = reproduced(plan(CELLS[0], settings=("minutes=1e-9",)), tmp_path, learnt)
    assert grid.results[0].steps == 1
    assert grid.results[0].figure("in-domain", "iou") is not None


def test_a_folder_of_other_settings_is_refused(learnt, tmp_path):
    reproduced(plan(CELLS[0]), tmp_path, learnt)
    other = plan(CELLS[0])
    other.configs[CELLS[0]] = other.configs[CELLS[0]].model_copy(update={"learning_rate": 0.5})
    with pytest.raises(TrainingError, match="trained with other settings"):
        reproduced(other, tmp_path, learnt)


def test_a_run_that_was_stopped_does_not_go_on_with_other_settings(learnt, tmp_path):
    with pytest.raises(TrainingError, match="stopped at step"):
        reproduced(plan(CELLS[2]), tmp_path, learnt, printed=SignalAt("step 2"))
    other = plan(CELLS[2])
    other.configs[CELLS[2]] = other.configs[CELLS[2]].model_copy(update={"learning_rate": 0.5})
    with pytest.raises(TrainingError, match="trained with other settings"):
        reproduced(other, tmp_path, learnt)


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {}}'])
def test_damaged_figures_are_refused_by_name(learnt, tmp_path, content):
    folder = tmp_path / CELLS[0].name / "seed-1"
    folder.mkdir(parents=True)
    (folder / "figures.json").write_text(content)
    with pytest.raises(TrainingError, match=r"figures\.json is damaged"):
        reproduced(plan(CELLS[0]), tmp_path, learnt)


def test_figures_stored_before_a_setting_existed_are_still_known(learnt, tmp_path):
    first = reproduced(plan(CELLS[0]), tmp_path, learnt)
    path = tmp_path / CELLS[0].name / "seed-1" / "figures.json"
    stored = json.loads(path.read_text())
    del stored["config"]["patience"]
    path.write_text(json.dumps(stored))
    assert reproduced(plan(CELLS[0]), tmp_path, learnt).results == first.results


def test_fewer_films_are_the_same_films_every_time(learnt, tmp_path):
    few = reproduced(plan(CELLS[0], most_films=3), tmp_path / "a", learnt)
    again = reproduced(plan(CELLS[0], most_films=3), tmp_path / "b", learnt)
    assert few.results[0].figures["in-domain"]["images"] == 3
    assert few.results[0].figures == again.results[0].figures


def test_without_a_val_split_there_is_nothing_to_score(tmp_path):
    with pytest.raises(TrainingError, match="no image of split 'val'"):
        reproduced(plan(CELLS[0]), tmp_path, film_table(8))


@pytest.mark.parametrize("same", ["uid", "pixels", "patient"])
def test_films_that_are_learnt_from_are_not_scored_as_those_of_elsewhere(learnt, tmp_path, same):
    other = films_of_elsewhere()
    images, records = other.images.copy(), list(other.records)
    if same == "uid":
        records[3] = replace(records[3], sop_instance_uid=learnt.records[5].sop_instance_uid)
    elif same == "patient":
        known = learnt.records[5]
        records[3] = replace(records[3], source=known.source, patient=known.patient)
    else:
        images[3] = learnt.images[5]
    changed = ImageTable(tuple(records), images, other.masks, ())
    with pytest.raises(TrainingError, match="1 of the 8 films of --cross are learnt from, too"):
        reproduced(plan(CELLS[0]), tmp_path, learnt, changed)
    assert not any(tmp_path.iterdir())


def test_the_command_writes_both_tables(tmp_path):
    export = write_export(
        tmp_path,
        16,
        lambda n: manifest_row(n).replace(",test,", ",val,").replace(",,", ",mask-0.png,"),
    )
    words = f"--data {export} --out {tmp_path / 'grid'} --cache {tmp_path / 'cache'}"
    words += " --model umtl --seeds 1 --labels 4 --masks 2"
    for setting in (*SHORT, 'stages=[{"side":32,"steps":2}]'):
        words += f" --set {setting}"
    done = subprocess.run(
        [sys.executable, "-m", "model.reproduce", *words.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("table.md")
    (figures,) = (tmp_path / "grid").glob("umtl-4-labels-2-masks/seed-1/figures.json")
    assert json.loads(figures.read_text())["steps"] == 2
    assert "| umtl | 4 | 2 |" in (tmp_path / "grid" / "table.md").read_text()


def test_quick_is_two_small_runs_of_each_row_of_100_labels_and_10_masks(tmp_path):
    export = write_export(
        tmp_path,
        16,
        lambda n: manifest_row(n).replace(",test,", ",val,").replace(",,", ",mask-0.png,"),
    )
    application = Typer()
    application.command()(main)
    words = ["--data", export, "--out", tmp_path / "grid", "--cache", tmp_path / "cache", "--quick"]
    words += ["--model", "unet", "--model", "enc", "--set", 'stages=[{"side":32,"steps":1}]']
    done = CliRunner().invoke(application, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    runs = sorted(str(path.parent.relative_to(tmp_path / "grid")) for path in figures_of(tmp_path))
    assert runs == [
        f"{row}/seed-{seed}" for row in ("enc-100-labels", "unet-10-masks") for seed in (1, 2)
    ]
    stored = json.loads(figures_of(tmp_path)[0].read_text())["config"]
    assert (stored["class_batch"], stored["mask_batch"], stored["unlabelled_batch"]) == (6, 6, 6)
    text = (tmp_path / "grid" / "table.md").read_text()
    assert "fewer labels to learn from than their budget: enc-100-labels" in text
    quick = configure("paper", overrides=QUICK_SETTINGS)
    assert quick.stages == (Stage(side=128, steps=40),)


def figures_of(folder):
    return sorted((folder / "grid").glob("*/*/figures.json"))


def test_the_command_says_what_is_wrong_in_a_sentence(tmp_path):
    application = Typer()
    application.command()(main)
    result = CliRunner().invoke(
        application, ["--data", str(tmp_path), "--out", str(tmp_path / "g"), "--labels", "some"]
    )
    assert result.exit_code == 1
    assert "a budget is a number or 'all', not 'some'" in result.output


def test_a_budget_that_no_training_takes_is_refused_before_anything_is_read(tmp_path):
    application = Typer()
    application.command()(main)
    result = CliRunner().invoke(
        application, ["--data", str(tmp_path / "x"), "--out", str(tmp_path / "g"), "--labels", "1"]
    )
    assert result.exit_code == 1
    assert "training setting labels" in result.output
