import csv
import json

import pytest

from dicom_io.errors import TrainingError
from model.presets import BEST
from model.run_folder import append_row, drop_rows_after, first_card, read_config, write_config
from tests.model.films import film_table


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_has_its_values_under_their_names_whatever_came_before(tmp_path):
    path = tmp_path / "metrics.csv"
    append_row(path, {"step": 1, "dice": 0.5, "score": 0.5})
    append_row(path, {"step": 2, "auroc": 0.25, "score": 0.25})
    append_row(path, {"step": 3, "dice": 0.75, "auroc": 0.5, "score": 0.625})
    assert rows_of(path) == [
        {"step": "1", "dice": "0.5", "score": "0.5", "auroc": ""},
        {"step": "2", "dice": "", "score": "0.25", "auroc": "0.25"},
        {"step": "3", "dice": "0.75", "score": "0.625", "auroc": "0.5"},
    ]
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.csv"]


def test_large_step_numbers_stay_whole(tmp_path):
    append_row(tmp_path / "metrics.csv", {"step": 1_234_567, "seconds": 0.5})
    assert rows_of(tmp_path / "metrics.csv")[0]["step"] == "1234567"


def test_rows_that_will_be_measured_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    for step in (250, 500, 750):
        append_row(path, {"step": step})
    drop_rows_after(path, 500)
    assert [row["step"] for row in rows_of(path)] == ["250", "500"]
    drop_rows_after(tmp_path / "none.csv", 500)
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("content", [b"\xd5\x00\xff", b"score\n0.5\n", b"step\nmany\n"])
def test_a_damaged_table_of_figures_is_named_when_it_is_gone_on_with(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"metrics\.csv is damaged"):
        drop_rows_after(path, 3)
    assert path.read_bytes() == content


def test_a_runs_configuration_comes_back(tmp_path):
    write_config(tmp_path / "run", BEST)
    assert read_config(tmp_path / "run") == BEST


def test_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(TrainingError, match="holds a run already"):
        write_config(tmp_path, BEST)


def test_figures_of_a_start_that_saved_no_state_are_not_mixed_with_new_ones(tmp_path):
    append_row(tmp_path / "metrics.csv", {"step": 1})
    write_config(tmp_path, BEST)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"seed": "x"}', '{"unheard_of": 1}'])
def test_a_missing_or_damaged_configuration_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(TrainingError):
        read_config(tmp_path)


def test_the_card_counts_training_rows_by_source_and_hashes_their_content():
    table, other = film_table(6), film_table(6, label=None)
    card = first_card("2", table, [0, 1, 4], BEST)
    assert card.training_data == {"A": 3}
    assert card.version == "2"
    assert json.loads(json.dumps(card.training_config))["teacher_decay"] == BEST.teacher_decay
    assert card.training_data_sha256 == first_card("3", table, [0, 1, 4], BEST).training_data_sha256
    assert card.training_data_sha256 != first_card("2", table, [0, 1], BEST).training_data_sha256
    assert card.training_data_sha256 != first_card("2", other, [0, 1, 4], BEST).training_data_sha256
