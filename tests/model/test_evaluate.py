import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from dicom_io.errors import CheckpointError, TrainingError
from dicom_io.pixels import map_on_source
from model.checkpoint import Calibration, ModelCard, write_model
from model.dataset import load_exports
from model.evaluate import evaluate, main
from model.group_figures import age_band
from model.image_table import ImageTable
from model.metrics import auroc, score_mask
from model.network import MultiMixNetwork, NetworkShape
from model.predictor import Predictor
from model.presets import TABLE_MODELS
from tests.model.exports import manifest_row, write_export
from tests.model.films import film_table, record

SHAPE = NetworkShape(channels=(2, 2, 2, 2, 2))


def network():
    torch.manual_seed(0)
    return MultiMixNetwork(SHAPE)


def predictor(**calibration):
    card = ModelCard(version="1", network={}, calibration=Calibration(**calibration))
    return Predictor(network(), card)


def answering(pneumonia: bool):
    """A predictor whose every verdict is the same."""
    return predictor(offset=20.0 if pneumonia else -20.0)


@pytest.fixture(scope="module")
def table():
    return film_table(10)


def relabelled(table, label_of, **changes):
    records = tuple(
        replace(r, label=label_of(n), **{k: v(n) for k, v in changes.items()})
        for n, r in enumerate(table.records)
    )
    return ImageTable(records, table.images, table.masks, ())


def test_the_constant_answers_stand_beside_the_verdict(table):
    seven_of_ten = relabelled(table, lambda n: "normal" if n < 7 else "pneumonia")
    report = evaluate(seven_of_ten, answering(pneumonia=False), full_size=False)
    assert report["accuracy_always_normal"] == pytest.approx(0.7)
    assert report["accuracy_always_pneumonia"] == pytest.approx(0.3)
    assert report["accuracy"] == pytest.approx(0.7)
    assert report["balanced_accuracy"] == pytest.approx(0.5)
    always_ill = evaluate(seven_of_ten, answering(pneumonia=True), full_size=False)
    assert always_ill["accuracy"] == pytest.approx(0.3)


def test_figures_follow_from_each_films_own_prediction(table):
    reader = predictor()
    report = evaluate(table, reader, full_size=False)
    alone = [reader.predict(np.asarray(image)).probability for image in table.images]
    labels = np.array([r.class_index for r in table.records])
    pairs = [
        (p > n) + 0.5 * (p == n)
        for p in np.array(alone)[labels == 1]
        for n in np.array(alone)[labels == 0]
    ]
    assert report["auroc"] == pytest.approx(np.mean(pairs))
    assert (report["images"], report["labelled_images"], report["masks"]) == (10, 10, 10)


def test_evaluating_twice_gives_the_same_report(table):
    assert evaluate(table, predictor(), full_size=False) == evaluate(
        table, predictor(), full_size=False
    )


def test_only_the_asked_split_is_scored(table):
    mixed = relabelled(
        table, lambda n: table.records[n].label, split=lambda n: "test" if n < 4 else "train"
    )
    assert evaluate(mixed, predictor(), split="test", full_size=False)["images"] == 4
    with pytest.raises(TrainingError, match=r"'val'.*test, train"):
        evaluate(mixed, predictor(), split="val", full_size=False)


def test_labels_of_a_one_class_source_are_not_scored_and_it_is_said(table):
    mixed = relabelled(
        table,
        lambda n: "pneumonia" if n >= 6 else table.records[n].label,
        source=lambda n: "One class" if n >= 6 else "Both",
    )
    report = evaluate(mixed, predictor(), full_size=False)
    assert report["one_class_sources_not_scored"] == ["One class"]
    assert report["labelled_images"] == 6
    assert report["masks"] == 10


def test_groups_are_reported_from_20_images_on():
    small = film_table(2)
    count = 45
    records = tuple(
        record(n, view="PA" if n < 25 else "AP", sex="" if n < 40 else "M") for n in range(count)
    )
    table = ImageTable(
        records,
        np.resize(small.images, (count, 256, 256)),
        np.resize(small.masks, (count, 256, 256)),
        (),
    )
    report = evaluate(table, predictor(), full_size=False)
    assert {view: group["images"] for view, group in report["by_view"].items()} == {
        "PA": 25,
        "AP": 20,
    }
    assert report["by_sex"] == {}
    assert report["by_age"]["40 to 59"]["images"] == count
    assert report["by_view"]["PA"]["dice"] == pytest.approx(report["dice"], abs=0.05)


def test_a_groups_figures_need_20_masks_or_labels_and_not_only_images():
    small = film_table(2)
    count = 40
    records = tuple(
        record(n, sex="F", view="PA" if n < 20 else "AP", has_mask=n < 39)
        if n < 20 or n % 2
        else record(n, sex="F", view="AP", label=None)
        for n in range(count)
    )
    table = ImageTable(
        records,
        np.resize(small.images, (count, 256, 256)),
        np.resize(small.masks, (count, 256, 256)),
        (),
    )
    report = evaluate(table, predictor(), full_size=False)
    assert {"images": 20, "masks": 19}.items() <= report["by_view"]["AP"].items()
    assert not {"dice", "accuracy"} & report["by_view"]["AP"].keys()
    assert {"dice", "accuracy"} <= report["by_view"]["PA"].keys()
    assert report["by_sex"]["F"]["labelled_images"] == 30


@pytest.mark.parametrize(
    ("age", "band"),
    [(None, ""), (0.5, "0 to 19"), (19.9, "0 to 19"), (20, "20 to 39"), (99, "80 to 99")],
)
def test_ages_fall_into_bands_of_twenty_years(age, band):
    assert age_band(record(1, age_years=age)) == band


def test_dice_and_jaccard_of_every_mask_agree_and_so_do_their_order(table):
    report = evaluate(table, predictor(), full_size=False)
    # The mean of 2J / (1 + J) is at most that of the mean J: the function is concave.
    assert report["iou"] <= report["dice"] <= 2 * report["iou"] / (1 + report["iou"]) + 1e-12


def test_a_model_of_a_smaller_side_reads_shrunk_films_and_its_masks_are_scored_on_the_tables_grid(
    table,
):
    card = ModelCard(version="1", network={}, input_side=128)
    report = evaluate(table, Predictor(network(), card), full_size=False)
    images = torch.from_numpy(np.asarray(table.images))[:, None].float()
    shrunk = torch.nn.functional.avg_pool2d(images, 2).round().byte()[:, 0].numpy()
    reader = Predictor(network(), card)
    labels = np.array([r.class_index for r in table.records])
    read = [reader.predict(image_hw) for image_hw in shrunk]
    assert report["auroc"] == pytest.approx(auroc(np.array([r.probability for r in read]), labels))
    stretched = [map_on_source(r.lung_probability_hw, 256, 256) >= 0.5 for r in read]
    dices = [score_mask(s, m > 0).dice for s, m in zip(stretched, table.masks, strict=True)]
    assert report["dice"] == pytest.approx(np.mean(dices))


def test_a_model_of_a_larger_side_than_the_table_is_refused(table):
    card = ModelCard(version="1", network={}, input_side=512)
    with pytest.raises(CheckpointError, match="512 px"):
        evaluate(table, Predictor(network(), card), full_size=False)


@pytest.mark.parametrize(
    ("model", "has", "lacks"), [("unet", "dice", "auroc"), ("enc", "auroc", "dice")]
)
def test_figures_of_a_task_that_was_never_learnt_are_left_out(table, model, has, lacks):
    tasks = {"tasks": TABLE_MODELS[model].model_dump()}
    card = ModelCard(version="1", network={}, training_config=tasks)
    report = evaluate(table, Predictor(network(), card), full_size=False)
    assert has in report
    assert lacks not in report


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    def all_masked(number):
        return manifest_row(number).replace(",,", f",mask-{number}.png,")

    return write_export(tmp_path_factory.mktemp("export"), 6, all_masked)


def command_line(*arguments):
    application = Typer()
    application.command()(main)
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


def test_masks_are_scored_at_the_images_own_size_too(export, tmp_path):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    report = evaluate(table, predictor())
    assert report["masks"] == 6
    assert report["dice_full_size"] == pytest.approx(report["dice"], abs=0.05)
    assert report["dice_full_size"] != report["dice"]
    # 128 x 96 pixels: distances at full size are shorter than on the 256 grid.
    assert report["average_surface_distance_px_full_size"] < report["average_surface_distance_px"]


def test_the_command_prints_one_json_object_and_counts_its_split(export, tmp_path):
    write_model(tmp_path / "model", network(), ModelCard(version="7", network={}))
    common = ("--data", export, "--checkpoint", tmp_path / "model", "--cache", tmp_path / "cache")
    result = command_line(*common, "--split", "test", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["model"], report["split"], report["images"]) == ("MultiMix 7", "test", 1)
    assert "warning" not in result.stderr
    table = command_line(*common)
    assert "dice" in table.stdout
    assert "the train split is scored too" in table.stderr


def test_the_command_shows_groups_and_says_whose_labels_are_not_scored(tmp_path):
    def two_clinics(number):
        row = manifest_row(number).replace(",PA,", ",AP," if number >= 20 else ",PA,")
        return row.replace("normal", "pneumonia").replace("Clinic", "Ill") if number >= 20 else row

    export = write_export(tmp_path, 22, two_clinics)
    write_model(tmp_path / "model", network(), ModelCard(version="7", network={}))
    words = ("--data", export, "--checkpoint", tmp_path / "model", "--cache", tmp_path / "cache")
    shown = command_line(*words).stdout
    assert "labels of Ill are not scored" in shown
    groups = shown.partition("groups that are large enough")[2]
    (views,) = [line for line in groups.splitlines() if "view:" in line]
    figures = json.loads(command_line(*words, "--json").stdout)["by_view"]
    assert "view: PA" in views  # two films of AP are no group
    assert f"{figures['PA']['auroc']:.4f}" in views
    assert f"{figures['PA']['shortcut_auroc']:.4f}" in views


def test_the_command_fails_with_a_sentence_where_the_model_is_missing(export, tmp_path):
    result = command_line(
        "--data", export, "--checkpoint", tmp_path / "none", "--cache", tmp_path / "cache"
    )
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


def test_the_verdict_stands_beside_a_regression_on_trivial_features():
    small = film_table(2)
    count = 60
    records = tuple(
        record(n, view="AP" if n % 2 else "PA", split="test" if n < 30 else "train")
        for n in range(count)
    )
    images = np.resize(small.images, (count, 256, 256))
    table = ImageTable(records, images, np.resize(small.masks, images.shape), ())
    report = evaluate(table, predictor(), split="test", full_size=False)
    assert report["shortcut_auroc"] == 1.0
    assert report["shortcut_auroc_of"]["view"] == 1.0
    assert report["shortcuts_fitted_on"].startswith("30 labelled images outside")
    assert report["by_source"]["A"]["shortcut_auroc"] == 1.0
    everything = evaluate(table, predictor(), full_size=False)
    assert "cross-validated by patient" in everything["shortcuts_fitted_on"]


def test_distances_in_mm_use_the_spacing_of_the_stretched_film():
    plain = film_table(4)
    # 512 x 256 pixels of 0.5 x 2 mm, stretched to 256 x 256: 1 mm x 2 mm.
    records = tuple(
        replace(r, rows=512, columns=256, pixel_spacing_mm=(0.5, 2.0)) for r in plain.records
    )
    assert records[0].grid_spacing_mm == (1.0, 2.0)
    report = evaluate(
        ImageTable(records, plain.images, plain.masks, ()), predictor(), full_size=False
    )
    assert report["hausdorff_px"] < report["hausdorff_mm"] <= 2 * report["hausdorff_px"]
    unknown = evaluate(plain, predictor(), full_size=False)
    assert unknown["hausdorff_mm"] is None
    assert unknown["ssim"] == pytest.approx(report["ssim"])
