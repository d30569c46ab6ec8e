"""Reading an export goes on where it was killed, and nothing that is known is read again."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from benchmarks.indexing import write_films
from dicom_io.archive import index_export
from dicom_io.errors import TrainingError
from model.dataset import load_exports
from model.export_reading import ContentImage, prepare_image
from model.image_table import ImageTable

ROOT = Path(__file__).parents[2]
FILMS = 900
READ = """
import sys
from pathlib import Path
from model.dataset import load_exports

load_exports([Path(sys.argv[1])], Path(sys.argv[2]), jobs=2)
"""

READ_WITH_LITTLE_MEMORY = """
import resource
import sys
from pathlib import Path
from model.dataset import load_exports

here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (here + (220 << 20),) * 2)
table = load_exports([Path(sys.argv[1])], Path(sys.argv[2]), jobs=1)
print(len(table.records), table.problems)
"""


def load(*exports: Path, cache: Path) -> ImageTable:
    return load_exports(exports, cache, jobs=1)


def films(folder: Path, count: int) -> Path:
    write_films(folder, count)
    return folder


def spoil(path: Path) -> None:
    """Make a file unreadable without a trace in its size and date, so that only reading tells."""
    facts = path.stat()
    path.write_bytes(b"\0" * facts.st_size)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def begin_reading(export: Path, cache: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", READ, str(export), str(cache)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )


def wait_until_safe(cache: Path, lines: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until so many files and images stand in the cache."""
    deadline = time.monotonic() + 120
    while True:
        counts = [path.read_bytes().count(b"\n") for path in cache.glob("*/*.jsonl")]
        if sum(count >= lines for count in counts) == 2:
            return
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reader_that_was_killed_is_gone_on_from(tmp_path: Path) -> None:
    export, cache = films(tmp_path / "export", FILMS), tmp_path / "cache"
    reader = begin_reading(export, cache)
    wait_until_safe(cache, 200, reader)
    reader.kill()
    reader.wait()
    (lines,) = cache.glob("*/images.jsonl")
    assert len(lines.read_bytes().splitlines()) < FILMS
    paths = sorted(path for path in export.rglob("*") if path.is_file())
    for path in paths[:100]:  # they were read before the reader was killed
        spoil(path)
    resumed = load(export, cache=cache)
    assert resumed.problems == ()
    assert sorted(record.path for record in resumed.records) == list(map(str, paths))
    pixels = {row.tobytes() for row in (resumed.images[n] for n in range(FILMS))}
    assert len(pixels) == 1, "every film shows the same"


def test_facts_that_an_earlier_journal_did_not_note_are_read_again(tmp_path: Path) -> None:
    export, cache = films(tmp_path / "export", 5), tmp_path / "cache"
    first = load(export, cache=cache)
    (journal,) = cache.glob("*/files-*.jsonl")
    journal.write_text(journal.read_text().replace('"sender":"",', ""))
    assert '"sender"' not in journal.read_text()
    assert load(export, cache=cache).records == first.records
    assert journal.read_text().count('"sender"') == len(first.records)


def test_a_moved_export_is_not_decoded_again(tmp_path: Path) -> None:
    export, cache = films(tmp_path / "export", 20), tmp_path / "cache"
    first = load(export, cache=cache)
    (rows,) = cache.glob("*/images.rows")
    size = rows.stat().st_size
    moved = Path(shutil.copytree(export, tmp_path / "moved", copy_function=shutil.copy))
    second = load(moved, cache=cache)
    assert rows.stat().st_size == size
    assert np.array_equal(second.images[:], first.images[:])
    assert all(record.path.startswith(str(moved)) for record in second.records)


def test_only_a_new_file_is_read(tmp_path: Path) -> None:
    export, cache = films(tmp_path / "export", 20), tmp_path / "cache"
    first = load(export, cache=cache)
    for record in first.records:
        spoil(Path(record.path))
    films(tmp_path / "more", 21)
    (new,) = (tmp_path / "more").rglob("IM000020")
    shutil.copy(new, export / "another")
    table = load(export, cache=cache)
    assert len(table.records) == 21
    assert table.problems == ()


def test_a_file_that_vanished_is_gone_from_the_table(tmp_path: Path) -> None:
    export, cache = films(tmp_path / "export", 20), tmp_path / "cache"
    first = load(export, cache=cache)
    Path(first.records[3].path).unlink()
    assert load(export, cache=cache).records == (*first.records[:3], *first.records[4:])


def test_two_readers_of_one_cache_do_not_disturb_each_other(tmp_path: Path) -> None:
    export, cache = films(tmp_path / "export", 300), tmp_path / "cache"
    readers = [begin_reading(export, cache) for _ in range(2)]
    assert [reader.wait(timeout=120) for reader in readers] == [0, 0]
    (rows,) = cache.glob("*/images.rows")
    assert rows.stat().st_size == 300 << 16


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(TrainingError, match="--cache takes another folder"):
        load(films(tmp_path / "export", 1), cache=tmp_path / "cache")


def test_a_name_that_is_no_unicode_is_read_and_reported_all_the_same(tmp_path: Path) -> None:
    export, cache = films(tmp_path / "export", 2), tmp_path / "cache"
    first, second = sorted(path for path in export.rglob("IM*"))
    first.rename(os.fsdecode(os.fsencode(first) + b"\xff"))
    odd = Path(os.fsdecode(os.fsencode(second) + b"\xfe"))
    odd.write_bytes(second.read_bytes()[:1000])
    for _ in range(2):
        table = load(export, cache=cache)
        assert len(table.records) == 2
        ((path, _),) = table.problems
        assert path.encode().endswith(rb"\udcfe")


def test_what_could_not_be_read_for_a_moment_is_tried_again(tmp_path: Path) -> None:
    export = films(tmp_path / "export", 1)
    (path,) = export.rglob("IM*")
    wanted = ContentImage(index_export(export).images[0], "content")
    path.rename(tmp_path / "away")
    away = prepare_image(wanted)
    assert (away.pixels_hw, away.is_final) == (None, False)
    (tmp_path / "away").rename(path)
    assert prepare_image(wanted).pixels_hw is not None


def test_a_film_too_large_for_the_memory_is_left_out_this_time_and_read_the_next(tmp_path):
    export = films(tmp_path / "export", 3)
    small, *_ = sorted(path for path in export.rglob("*") if path.is_file())
    film = dcmread(small)
    film.Rows = film.Columns = 5000
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    bytes_a_pixel = film.BitsAllocated // 8
    film.PixelData = bytes(range(200)) * (film.Rows * film.Columns * bytes_a_pixel // 200)
    film.save_as(export / "large.dcm")
    done = subprocess.run(
        [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(export), str(tmp_path / "cache")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 ")
    assert "large.dcm', 'there was too little memory" in done.stdout
    table = load(export, cache=tmp_path / "cache")
    assert len(table.records) == 4
    assert table.problems == ()
