import csv
from dataclasses import replace

import pytest

from dicom_io.errors import TrainingError
from model.split_file import require_same_splits, write_splits
from model.splits import divide
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
