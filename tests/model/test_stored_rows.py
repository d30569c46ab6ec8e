import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_io.errors import TrainingError
from model.stored_rows import join_rows, open_rows, write_rows

ROOT = Path(__file__).parents[2]


def noise(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 6, 4)).astype(np.uint8)


def stored(folder, name, array):
    path = folder / f"{name}.npy"
    np.save(path, array)
    return open_rows(path, len(array))


@pytest.fixture
def joined(tmp_path):
    """Three files of 3, 1 and 5 rows, in memory and on disk."""
    parts = [noise(rows, seed=rows) for rows in (3, 1, 5)]
    return np.concatenate(parts), join_rows(
        stored(tmp_path, str(n), part) for n, part in enumerate(parts)
    )


@pytest.mark.parametrize(
    "which",
    [
        *(0, 2, 3, 8, -1, -9, np.int64(4)),
        *(slice(None), slice(2, 5), slice(7, 0, -2), slice(5, 5)),
        *([8, 0, 3, 3], np.array([4, 2]), [], range(1, 4)),
    ],
    ids=str,
)
def test_rows_of_joined_files_are_those_of_one_array(joined, which):
    array, rows = joined
    expected = array[list(which) if isinstance(which, range) else which]
    if isinstance(which, list) and not which:
        expected = array[:0]
    found = rows[which]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_shape_length_and_iteration_are_those_of_one_array(joined):
    array, rows = joined
    assert rows.shape == array.shape
    assert len(rows) == len(array)
    assert all(np.array_equal(a, b) for a, b in zip(rows, array, strict=True))


@pytest.mark.parametrize("which", [9, -10, [0, 9]], ids=str)
def test_a_row_that_does_not_exist_is_refused(joined, which):
    with pytest.raises(IndexError):
        joined[1][which]


@pytest.mark.parametrize("which", [np.ones(9, bool), [[0, 1]], [0.5]], ids=str)
def test_what_does_not_number_rows_is_refused(joined, which):
    with pytest.raises(IndexError, match="list of numbers"):
        joined[1][which]


def test_what_is_read_belongs_to_the_reader(joined):
    array, rows = joined
    rows[0][:] = 0
    np.testing.assert_array_equal(rows[0], array[0])


def test_a_written_file_is_numpys_own_and_unwritten_rows_are_zero(tmp_path):
    images = noise(4)
    with write_rows(tmp_path / "rows.npy", (4, 6, 4)) as writer:
        for row in (2, 0):
            writer.write(row, images[row])
    expected = images.copy()
    expected[[1, 3]] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), expected)
    np.testing.assert_array_equal(open_rows(tmp_path / "rows.npy", 3)[:], expected[:3])


def test_a_row_of_another_shape_or_place_is_not_written(tmp_path):
    with write_rows(tmp_path / "rows.npy", (4, 6, 4)) as writer:
        for row, image_hw in ((4, noise(1)[0]), (-1, noise(1)[0]), (0, noise(1)[0].T)):
            with pytest.raises(ValueError, match="does not fit"):
                writer.write(row, image_hw)


@pytest.mark.parametrize(
    "content",
    [b"", b"no array", noise(3).astype(np.int16), noise(3)[0], np.asfortranarray(noise(3))],
    ids=["empty", "text", "int16", "one image", "column-major"],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "rows.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=r"."):
        open_rows(path, 1)


def test_a_shortened_file_is_noticed_at_once_or_when_it_is_read(tmp_path):
    rows = stored(tmp_path, "rows", noise(3))
    path = tmp_path / "rows.npy"
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(rows[1], noise(3)[1])
    with pytest.raises(TrainingError, match="shorter than its table"):
        rows[2]
    with pytest.raises(ValueError, match="fewer than 3 rows"):
        open_rows(path, 3)


def test_tables_of_other_sizes_are_not_joined(tmp_path):
    with pytest.raises(ValueError, match="different shapes"):
        join_rows([stored(tmp_path, "a", noise(2)), stored(tmp_path, "b", noise(2)[:, :3])])


def test_a_descriptor_lives_as_long_as_a_table_that_needs_it(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("this system does not list open files")

    def open_files():
        return [d for d in descriptors.iterdir() if str(tmp_path) in os.path.realpath(d)]

    part = stored(tmp_path, "rows", noise(2))
    table = join_rows([part])
    del part
    np.testing.assert_array_equal(table[:], noise(2))
    assert len(open_files()) == 1
    del table
    assert not open_files()


PASS_OVER_ROWS = """
import resource, sys
from pathlib import Path
from model.stored_rows import join_rows, open_rows

rows = join_rows([open_rows(Path(path), 8000) for path in sys.argv[1:]])
rows[[0, 15_999]]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, len(rows), 50):
    rows[start : start + 50]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_pass_over_a_gigabyte_of_rows_keeps_none_of_them(tmp_path):
    paths = [tmp_path / name for name in ("first.npy", "second.npy")]
    for path in paths:
        with write_rows(path, (8000, 256, 256)):
            pass  # a hole in the file: no disk is used
    grown = subprocess.run(
        [sys.executable, "-c", PASS_OVER_ROWS, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(grown.stdout) < 50_000, "kB"
