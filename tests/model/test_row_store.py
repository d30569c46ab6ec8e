from contextlib import closing

import numpy as np
import pytest

from model.row_store import Kept, RowStore
from model.stored_rows import NO_ROW

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)


def store(folder):
    return closing(RowStore(folder, "images", (4, 5)))


def test_what_was_kept_is_found_by_its_content_in_a_later_process(tmp_path):
    with store(tmp_path) as images:
        images.keep("a", IMAGES[0])
        images.keep("b", None, "cannot be decoded")
        images.keep("c", IMAGES[2])
    with store(tmp_path) as images:
        assert images.find("a") == Kept("a", 0, "")
        assert images.find("b") == Kept("b", None, "cannot be decoded")
        assert images.find("unknown") is None
        images.keep("d", IMAGES[1])
        images.sync()
        rows = images.open([2, NO_ROW, 1])
    np.testing.assert_array_equal(rows[:], [IMAGES[1], np.zeros((4, 5)), IMAGES[2]])


def test_nothing_is_known_that_is_not_on_disk(tmp_path):
    with store(tmp_path) as images:
        images.keep("a", IMAGES[0])
        images.sync()
        images.keep("b", IMAGES[1])
        with store(tmp_path) as killed:  # as a process would find it after a kill here
            assert killed.find("a") is not None
            assert killed.find("b") is None


@pytest.mark.parametrize("end", [b'{"content":"b","row":1', b"\xff\x00 no text", b"[]"])
def test_half_a_line_spoils_neither_its_neighbours_nor_what_comes_after(tmp_path, end):
    with store(tmp_path) as images:
        images.keep("a", IMAGES[0])
    with (tmp_path / "images.jsonl").open("ab") as lines:
        lines.write(end)
    with store(tmp_path) as images:
        images.keep("c", IMAGES[2])
    with store(tmp_path) as images:
        found = [images.find(content) for content in "abc"]
    assert found == [Kept("a", 0, ""), None, Kept("c", 1, "")]


def test_a_line_without_its_row_is_forgotten(tmp_path):
    with store(tmp_path) as images:
        for content, image in zip("abc", IMAGES, strict=True):
            images.keep(content, image)
    with (tmp_path / "images.rows").open("r+b") as rows:
        rows.truncate(2 * 20 + 3)
    with store(tmp_path) as images:
        assert [images.find(content) is not None for content in "abc"] == [True, True, False]
        assert images.keep("c", IMAGES[2]).row == 2


@pytest.mark.parametrize("left", [0, 1])
def test_a_line_whose_row_was_lost_does_not_come_back_with_the_row_of_another(tmp_path, left):
    with store(tmp_path) as images:
        for content, image in zip("ab", IMAGES[:2], strict=True):
            images.keep(content, image)
    with (tmp_path / "images.rows").open("r+b") as rows:
        rows.truncate(left * 20)
    with store(tmp_path) as images:
        images.keep("c", IMAGES[2])
        images.keep("d", IMAGES[2])
    with store(tmp_path) as images:
        found = [images.find(content) for content in "ab"]
        assert found == [Kept("a", 0, "")] * left + [None] * (2 - left)
        kept = images.find("d")
        assert kept is not None
        np.testing.assert_array_equal(images.open([kept.row])[0], IMAGES[2])
