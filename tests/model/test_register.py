import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from dicom_io.errors import CheckpointError, MultiMixError, TrainingError
from model.checkpoint import (
    CARD_FILE,
    WEIGHTS_FILE,
    Calibration,
    read_card,
    read_model,
    write_model,
)
from model.config import TrainingConfig
from model.dataset import load_exports
from model.network import MultiMixNetwork, NetworkShape
from model.predictor import Predictor
from model.presets import TABLE_MODELS
from model.register import (
    HELD_OUT_AS_SERVED,
    count_licences,
    limitations_of,
    main,
    read_licences,
    register,
    rounded,
)
from model.run_folder import first_card, read_config, write_config
from model.split_file import write_splits
from model.splits import divide_as_configured
from model.streams import make_streams
from tests.model.exports import manifest_row, write_export
from tests.model.films import film_table, record


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("export"), 8)


@pytest.fixture
def run(export, tmp_path):
    return finished_run(tmp_path / "run", load_exports([export], tmp_path / "cache", jobs=1))


def finished_run(out, table, config=None):
    """A run's folder as training leaves it, with a network that has not learnt anything."""
    config = config or TrainingConfig()
    write_config(out, config)
    rows = make_streams(table.records, divide_as_configured(table.records, config), config).rows
    card = first_card("0", table, rows, config).model_copy(
        update={
            "calibration": Calibration(scale=2, operating_point=0.4),
            "metrics": {"held-out patients": {"dice": 0.5}},
        }
    )
    write_model(out / "model", MultiMixNetwork(NetworkShape(channels=(2, 2, 2, 2, 2))), card)
    return out


def handed_over(run, export, tmp_path, version="1.0.0"):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    return register(run, table, read_licences([export]), tmp_path / "models", version)


def test_a_registered_model_answers_as_the_runs_best_did(run, export, tmp_path):
    folder = handed_over(run, export, tmp_path)
    assert folder == tmp_path / "models" / "multimix-1.0.0"
    before, after = read_model(run / "model")[1], read_model(folder)[1]
    assert after.weights_sha256 == before.weights_sha256
    assert after.calibration == before.calibration
    film = load_exports([export], tmp_path / "cache").images[0]
    probabilities = [Predictor.load(f).predict(film).probability for f in (run / "model", folder)]
    assert probabilities[0] == probabilities[1]


def test_its_card_says_what_it_learnt_from_and_how_well_it_does(run, export, tmp_path):
    card = read_model(handed_over(run, export, tmp_path))[1]
    assert card.version == "1.0.0"
    # Of the eight films two are of the test split, and one is held out.
    assert card.training_data == {"Clinic": {"images": 5, "licences": {"CC0": 5}}}
    assert card.training_data_sha256 == read_card(run / "model").training_data_sha256
    assert card.metrics["test"]["images"] == 2
    # Neither figures of what was learnt from, nor those of validations during training.
    assert set(card.metrics) == {"test"}
    assert card.limitations


def test_licences_are_counted_by_source_over_what_was_learnt_from():
    records = tuple(
        record(n, source=source) for n, source in enumerate(["A", "A", "A", "B", "", ""])
    )
    table = replace(film_table(1), records=records)
    licences = {"1.2.3.0": "CC BY", "1.2.3.1": "CC0", "1.2.3.2": "CC BY", "1.2.3.4": "own"}
    assert count_licences(table, [0, 2, 1, 3, 4, 5], licences) == {
        "A": {"CC BY": 2, "CC0": 1},
        "unnamed": {"own": 1, "unstated": 1},
    }
    assert count_licences(table, [1], licences) == {"A": {"CC0": 1}}
    assert count_licences(table, [0, 3], {}) == {}


def test_a_registered_version_is_never_written_again(run, export, tmp_path):
    folder = handed_over(run, export, tmp_path)
    content = {name: (folder / name).read_bytes() for name in (WEIGHTS_FILE, CARD_FILE)}
    with pytest.raises(CheckpointError, match="raise --version"):
        handed_over(run, export, tmp_path)
    assert all((folder / name).read_bytes() == kept for name, kept in content.items())
    assert all((folder / name).stat().st_mode & 0o222 == 0 for name in content)
    assert handed_over(run, export, tmp_path, "1.0.1") != folder


def test_a_variant_has_a_name_and_a_directory_of_its_own(run, export, tmp_path):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    folder = register(run, table, {}, tmp_path / "models", "1.0.0", "MultiMix CC BY")
    assert folder.name == "multimix-cc-by-1.0.0"
    assert read_model(folder)[1].name == "MultiMix CC BY"


@pytest.mark.parametrize(
    ("name", "version"), [("../evil", "1"), ("", "1"), ("A\0", "1"), ("A", "1/2"), (".", "")]
)
def test_what_cannot_name_a_directory_is_refused(run, export, tmp_path, name, version):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    with pytest.raises(CheckpointError, match="cannot name a model directory"):
        register(run, table, {}, tmp_path / "models", version, name)


def test_a_version_that_cannot_be_is_refused_before_the_exports_are_read(run, tmp_path):
    (tmp_path / "models" / "multimix-1.0.0").mkdir(parents=True)
    for version, told in (("1.0.0", "exists; a registered"), ("1.0-RC1", "has lower-case letters")):
        said = registered(run, tmp_path / "no export", tmp_path / "models", version)
        assert said.exit_code == 1
        assert told in said.output


def test_limitations_are_those_of_the_sources():
    own = limitations_of(["Our hospital"])
    both = limitations_of(["Our hospital", "NIH ChestX-ray14"])
    assert len(both) == len(own) + 1
    assert "NIH" not in " ".join(own)


def test_a_run_without_a_model_is_refused(export, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        handed_over(tmp_path / "none", export, tmp_path)
    assert not (tmp_path / "models").exists()


def test_a_hand_over_that_fails_leaves_nothing_and_may_be_repeated(tmp_path):
    lost = write_export(
        tmp_path / "lost", 8, lambda n: manifest_row(n).replace(",,", ",mask-0.png,")
    )
    table = load_exports([lost], tmp_path / "cache", jobs=1)
    run = finished_run(tmp_path / "run", table)
    masks = {Path(path) for one in table.records for path in one.mask_paths}
    for mask in masks:
        mask.rename(mask.with_suffix(".away"))  # the full-size reference is read again
    with pytest.raises(MultiMixError):
        register(run, table, {}, tmp_path / "models", "1.0.0")
    assert list((tmp_path / "models").iterdir()) == []
    for mask in masks:
        mask.with_suffix(".away").rename(mask)
    assert register(run, table, {}, tmp_path / "models", "1.0.0").exists()


def test_other_exports_than_those_of_the_run_are_refused(run, export, tmp_path):
    table = load_exports([export], tmp_path / "cache", jobs=1)
    write_splits(run, table.records, divide_as_configured(table.records, read_config(run)))
    register(run, table, {}, tmp_path / "models", "1.0.0")
    more = write_export(tmp_path / "more", 9)
    with pytest.raises(TrainingError, match="would be used otherwise"):
        register(run, load_exports([more], tmp_path / "cache"), {}, tmp_path / "models", "2.0.0")
    assert not (tmp_path / "models" / "multimix-2.0.0").exists()


def changed_pixel(table):
    images = table.images.copy()
    images[0, 0, 0] ^= 1
    return replace(table, images=images)


def changed_mask(table):
    masks = table.masks.copy()
    masks[0, 0, 0] ^= 1
    return replace(table, masks=masks)


def changed_label(table):
    first = replace(table.records[0], label="pneumonia")
    return replace(table, records=(first, *table.records[1:]))


@pytest.mark.parametrize("change", [changed_pixel, changed_mask, changed_label])
def test_the_same_films_with_other_pixels_masks_or_labels_are_refused(tmp_path, change):
    table = film_table(12)
    run = finished_run(tmp_path / "run", table)
    pools = divide_as_configured(table.records, TrainingConfig())
    write_splits(run, table.records, pools)
    assert 0 in make_streams(table.records, pools, TrainingConfig()).rows
    with pytest.raises(TrainingError, match=r"not the exports .* pixels, masks or labels differ"):
        register(run, change(table), {}, tmp_path / "models", "1.0.0")
    assert not (tmp_path / "models").exists()
    assert register(run, table, {}, tmp_path / "models", "1.0.0").exists()


@pytest.mark.parametrize(("model", "missing"), [("unet", "verdicts"), ("enc", "lung masks")])
def test_a_run_that_learnt_one_task_is_refused(tmp_path, model, missing):
    table = film_table(12)
    run = finished_run(tmp_path / "run", table, TrainingConfig(tasks=TABLE_MODELS[model]))
    with pytest.raises(TrainingError, match=f"never learnt {missing}, which"):
        register(run, table, {}, tmp_path / "models", "1.0.0")
    assert not (tmp_path / "models").exists()


def test_without_another_split_the_card_has_the_figures_of_the_held_out(tmp_path):
    table = film_table(40, split=None)
    run = finished_run(tmp_path / "run", table, TrainingConfig(validation_share=0.4))
    card = read_card(register(run, table, {}, tmp_path / "models", "1.0.0"))
    held_out = divide_as_configured(table.records, read_config(run)).validation
    assert card.metrics[HELD_OUT_AS_SERVED]["images"] == len(held_out) > 0
    assert "auroc" in card.metrics[HELD_OUT_AS_SERVED]
    assert set(card.metrics) == {HELD_OUT_AS_SERVED}


@pytest.mark.parametrize(
    "content", [b"image,licence\n1,CC0\n", b"SOPInstanceUID,licence\n\xff\xfe,CC0\n"]
)
def test_a_table_of_licences_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "attribution.csv").write_bytes(content)
    with pytest.raises(TrainingError, match=r"attribution\.csv"):
        read_licences([tmp_path])


def registered(run, export, models, version):
    """What ``python -m model.register`` comes to, in this process."""
    application = Typer()
    application.command()(main)
    words = [run, "--data", export, "--out", models, "--version", version]
    words += ["--cache", models.parent / "cache"]
    return CliRunner().invoke(application, list(map(str, words)))


def test_the_command_warns_of_a_model_without_gate(run, export, tmp_path):
    result = registered(run, export, tmp_path / "models", "1.0.0")
    assert result.exit_code == 0, result.output
    assert "the model has no gate" in result.output
    assert str(tmp_path / "models" / "multimix-1.0.0") in result.output


def test_figures_are_rounded_wherever_they_stand():
    report = {"dice": 0.123456, "by_view": {"PA": {"images": 3, "dice": 1 / 3}}, "split": None}
    assert json.dumps(rounded(report)) == json.dumps(
        {"dice": 0.1235, "by_view": {"PA": {"images": 3, "dice": 0.3333}}, "split": None}
    )
