import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_io.errors import TrainingError
from model.stored_rows import NO_ROW, RowsWriter, open_rows

ROOT = Path(__file__).parents[2]


def noise(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 6, 4)).astype(np.uint8)


def stored(folder, array, numbers):
    path = folder / "images.rows"
    writer = RowsWriter(path, array.shape[1:])
    for image_hw in array:
        writer.append(image_hw)
    writer.close()
    return open_rows(path, array.shape[1:], numbers)


@pytest.fixture
def chosen(tmp_path):
    """Nine rows of a file of twelve in another order, one of them of zeros."""
    array, numbers = noise(12), [3, 11, 0, 7, NO_ROW, 2, 2, 5, 10]
    expected = array[numbers]
    expected[4] = 0
    return expected, stored(tmp_path, array, numbers)


@pytest.mark.parametrize(
    "which",
    [
        *(0, 2, 3, 8, -1, -9, np.int64(4)),
        *(slice(None), slice(2, 5), slice(7, 0, -2), slice(5, 5)),
        *([8, 0, 3, 3], np.array([4, 2]), [], range(1, 4)),
    ],
    ids=str,
)
def test_chosen_rows_are_those_of_one_array(chosen, which):
    array, rows = chosen
    expected = array[list(which) if isinstance(which, range) else which]
    if isinstance(which, list) and not which:
        expected = array[:0]
    found = rows[which]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_shape_length_and_iteration_are_those_of_one_array(chosen):
    array, rows = chosen
    assert rows.shape == array.shape
    assert len(rows) == len(array)
    assert all(np.array_equal(a, b) for a, b in zip(rows, array, strict=True))


@pytest.mark.parametrize("which", [9, -10, [0, 9]], ids=str)
def test_a_row_that_does_not_exist_is_refused(chosen, which):
    with pytest.raises(IndexError):
        chosen[1][which]


@pytest.mark.parametrize("which", [np.ones(9, bool), [[0, 1]], [0.5]], ids=str)
def test_what_does_not_number_rows_is_refused(chosen, which):
    with pytest.raises(IndexError, match="list of numbers"):
        chosen[1][which]


def test_what_is_read_belongs_to_the_reader(chosen):
    array, rows = chosen
    rows[0][:] = 0
    np.testing.assert_array_equal(rows[0], array[0])


def test_rows_are_appended_where_an_earlier_process_was_killed(tmp_path):
    array = noise(4)
    stored(tmp_path, array[:3], [])
    os.truncate(tmp_path / "images.rows", 2 * 24 + 7)
    writer = RowsWriter(tmp_path / "images.rows", (6, 4))
    assert writer.append(array[3]) == 2
    writer.sync()
    rows = open_rows(tmp_path / "images.rows", (6, 4), [0, 1, 2])
    np.testing.assert_array_equal(rows[:], array[[0, 1, 3]])


@pytest.mark.parametrize("image", [noise(1)[0].T, noise(1)[0].astype(np.int16)], ids=str)
def test_a_row_of_another_shape_or_type_is_not_written(tmp_path, image):
    writer = RowsWriter(tmp_path / "images.rows", (6, 4))
    with pytest.raises(ValueError, match="is no row"):
        writer.append(image)


@pytest.mark.parametrize("number", [3, -2])
def test_a_row_that_the_file_does_not_hold_is_refused(tmp_path, number):
    with pytest.raises(ValueError, match="holds 3 rows"):
        stored(tmp_path, noise(3), [0, number])


def test_a_file_that_was_shortened_is_noticed_when_it_is_read(tmp_path):
    rows = stored(tmp_path, noise(3), [0, 1, 2])
    path = tmp_path / "images.rows"
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(rows[1], noise(3)[1])
    with pytest.raises(TrainingError, match="shorter than its table"):
        rows[2]


def test_a_descriptor_lives_as_long_as_its_table(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("this system does not list open files")

    def open_files():
        return [d for d in descriptors.iterdir() if str(tmp_path) in os.path.realpath(d)]

    table = stored(tmp_path, noise(2), [1, 0])
    assert len(open_files()) == 1
    del table
    assert not open_files()


PASS_OVER_ROWS = """
import resource, sys
from pathlib import Path
from model.stored_rows import open_rows

rows = open_rows(Path(sys.argv[1]), (256, 256), range(16_000))
rows[[0, 15_999]]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, len(rows), 50):
    rows[start : start + 50]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_pass_over_a_gigabyte_of_rows_keeps_none_of_them(tmp_path):
    path = tmp_path / "images.rows"
    path.touch()
    os.truncate(path, 16_000 << 16)  # a hole in the file: no disk is used
    grown = subprocess.run(
        [sys.executable, "-c", PASS_OVER_ROWS, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(grown.stdout) < 50_000, "kB"
