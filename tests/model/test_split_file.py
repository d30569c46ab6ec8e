import csv
from dataclasses import replace

import pytest

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.split_file import in_stored_order, pools_of_run, require_same_splits, write_splits
from model.splits import divide, divide_as_configured
from tests.model.films import record


def pools_of(rows, seed=0):
    return divide(rows, labels=10, masks=5, validation_share=0.3, seed=seed)


@pytest.fixture
def rows():
    return [record(n, split="test" if n < 5 else "train", patient=f"Doe-{n}") for n in range(60)]


def test_every_row_stands_there_with_its_use_and_no_patient(rows, tmp_path):
    pools = pools_of(rows)
    write_splits(tmp_path, rows, pools)
    text = (tmp_path / "splits.csv").read_text()
    assert "Doe" not in text
    lines = list(csv.DictReader(text.splitlines()))
    assert [line["SOPInstanceUID"] for line in lines] == [row.sop_instance_uid for row in rows]
    for use, expected in (("train", pools.unlabelled), ("validation", pools.validation)):
        assert tuple(n for n, line in enumerate(lines) if line["use"] == use) == expected
    assert [line["use"] for line in lines[:5]] == ["test"] * 5
    assert sum(line["labelled"] == "1" for line in lines) == 10
    assert sum(line["masked"] == "1" for line in lines) == 5


def test_the_same_splits_are_gone_on_with_in_whatever_order(rows, tmp_path):
    write_splits(tmp_path, rows, pools_of(rows))
    require_same_splits(tmp_path, rows[::-1], pools_of(rows[::-1]))
    require_same_splits(tmp_path / "of an earlier version", rows, pools_of(rows))


def test_other_splits_are_refused_with_their_number(rows, tmp_path):
    write_splits(tmp_path, rows, pools_of(rows))
    with pytest.raises(TrainingError, match="images would be used otherwise"):
        require_same_splits(tmp_path, rows, pools_of(rows, seed=1))
    moved = [*rows[:-1], replace(rows[-1], split="test")]
    with pytest.raises(TrainingError, match="images would be used otherwise"):
        require_same_splits(tmp_path, moved, pools_of(moved))


def test_a_damaged_file_is_refused(rows, tmp_path):
    (tmp_path / "splits.csv").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(TrainingError, match="damaged"):
        require_same_splits(tmp_path, rows, pools_of(rows))


def test_what_a_run_used_is_what_it_stored_and_not_what_would_be_drawn_now(rows, tmp_path):
    pools = pools_of(rows, seed=1)
    write_splits(tmp_path, rows, pools)
    reordered = rows[::-1]
    found = pools_of_run(tmp_path, reordered, TrainingConfig(seed=0))
    for part in ("labelled", "masked", "unlabelled", "validation"):
        assert {reordered[row] for row in getattr(found, part)} == {
            rows[row] for row in getattr(pools, part)
        }
    assert found.classes == pools.classes[::-1]
    in_order = in_stored_order(tmp_path, reordered, found.unlabelled)
    assert [reordered[row] for row in in_order] == [rows[row] for row in pools.unlabelled]


@pytest.mark.parametrize(
    "changes", [{"split": "test"}, {"label": None}, {"has_mask": False}, {"sop_instance_uid": "9"}]
)
def test_rows_that_cannot_have_been_used_as_stored_are_refused(rows, tmp_path, changes):
    pools = pools_of(rows)
    write_splits(tmp_path, rows, pools)
    changed = [
        replace(row, **changes) if number in (*pools.labelled, *pools.masked) else row
        for number, row in enumerate(rows)
    ]
    with pytest.raises(TrainingError, match="images would be used otherwise"):
        pools_of_run(tmp_path, changed, TrainingConfig())


def test_a_run_that_stored_nothing_is_divided_as_configured(rows, tmp_path):
    config = TrainingConfig(seed=2, labels=10)
    assert pools_of_run(tmp_path, rows, config) == divide_as_configured(rows, config)


def test_a_film_of_split_train_that_is_used_for_nothing_has_no_use(rows, tmp_path):
    rows[7] = replace(rows[7], patient=rows[0].patient, source="elsewhere")
    write_splits(tmp_path, rows, pools_of(rows))
    lines = list(csv.DictReader((tmp_path / "splits.csv").read_text().splitlines()))
    assert (lines[0]["use"], lines[7]["use"]) == ("test", "")
