"""Damaged archive exports: what cannot be read ends in the report, everything else is read."""

import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_io.archive_index import ExportIndex, index_export
from dicom_io.errors import ArchiveError
from dicom_io.lung_mask import read_lung_mask
from tests.model.exports import write_export

FILMS = 8
ROUNDS = 60


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("fuzz"), FILMS)


def damage(path: Path, chance: random.Random) -> None:
    """Change, cut, stretch or empty a file."""
    content = bytearray(path.read_bytes())
    start = 128 if path.suffix == ".dcm" else 0
    end = min(len(content), chance.choice((start + 600, start + 3000, len(content))))
    match chance.randrange(5):
        case 0 | 1 | 2:
            for _ in range(chance.randint(1, 12)):
                content[chance.randrange(start, end)] = chance.randrange(256)
        case 3:
            del content[chance.randrange(len(content)) :]
        case 4:
            at = chance.randrange(start, end)
            content[at:at] = chance.randbytes(chance.randint(1, 40))
    path.write_bytes(content)


def every_mask(index: ExportIndex) -> int:
    """Read all masks that the index knows of; how many could be."""
    read = 0
    for image in index.images:
        if not image.mask_paths:
            continue
        try:
            mask_hw = read_lung_mask(image.mask_paths, image)
        except ArchiveError:
            continue
        assert (mask_hw.dtype, mask_hw.shape) == (np.bool_, (image.rows, image.columns))
        read += 1
    return read


def test_damaged_files_end_in_the_report_and_the_others_are_read(
    export: Path, tmp_path: Path
) -> None:
    unreadable = masks = 0
    whole = index_export(export)
    for number in range(ROUNDS):
        chance = random.Random(number)
        copy = tmp_path / str(number)
        shutil.copytree(export, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        damaged = chance.sample(files, 4)
        for path in damaged:
            damage(path, chance)
        index = index_export(copy)
        masks += every_mask(index)
        unreadable += len(index.unreadable)
        for path, reason in index.unreadable:
            assert path in damaged, f"{path} was whole: {reason}"
        sound = {image.path.name for image in index.images}
        assert {image.path.name for image in whole.images} - sound <= {
            path.name for path in damaged
        }
        shutil.rmtree(copy)
    assert unreadable > ROUNDS // 2, "the damage reached what it was for"
    assert masks > ROUNDS, "and left something to read"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_no_content_of_labels_csv_stops_the_index(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "labels.csv").write_bytes(content)
        index = index_export(Path(folder))
    assert index.images == ()
