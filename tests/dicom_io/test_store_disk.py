import os

from dicom_io.store_disk import StoreDisk


def test_what_a_crash_left_half_written_is_cleared_away_but_not_what_is_being_written(tmp_path):
    disk = StoreDisk(tmp_path)
    old, young = tmp_path / "partial" / "old", tmp_path / "partial" / "young"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert disk.remove_abandoned_parts() == 1
    assert not old.exists()
    assert young.exists()


def test_a_disk_below_its_low_water_mark_or_that_cannot_be_written_has_a_problem(tmp_path):
    assert StoreDisk(tmp_path).problem() is None
    assert list((tmp_path / "partial").iterdir()) == [], "the probe is gone again"
    assert "low-water" in str(StoreDisk(tmp_path, low_water_mark_bytes=1 << 60).problem())
    disk = StoreDisk(tmp_path / "store")
    (tmp_path / "store" / "partial").rmdir()
    assert disk.problem() == "the store cannot be written: No such file or directory"


def test_a_file_that_is_there_is_replaced_as_a_whole(tmp_path):
    disk = StoreDisk(tmp_path)
    path = tmp_path / "deep" / "down" / "file"
    for content in (b"first", b"second"):
        disk.write(path, b"header ", content)
    assert path.read_bytes() == b"header second"
