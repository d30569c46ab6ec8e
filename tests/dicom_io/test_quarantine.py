import os
import time

from dicom_io.storage import InstanceStore


def test_the_quarantine_keeps_the_bytes_with_their_reason_until_it_is_full(tmp_path):
    store = InstanceStore(tmp_path, quarantine_limit_bytes=1000)
    relative_path = store.quarantine.put(b"x" * 900, "the dataset is not the one of the command")
    assert relative_path is not None
    assert store.path_of(relative_path).read_bytes() == b"x" * 900
    assert "not the one" in store.path_of(relative_path).with_suffix(".txt").read_text()
    assert store.quarantine.put(b"y" * 900, "again") is None


def test_the_quarantine_takes_only_so_many_objects_however_small(tmp_path, monkeypatch):
    monkeypatch.setattr("dicom_io.quarantine._MOST_OBJECTS", 3)
    store = InstanceStore(tmp_path)
    kept = [store.quarantine.put(b"%d" % number, "why") for number in range(5)]
    assert [path is not None for path in kept] == [True, True, True, False, False]
    assert len(list((tmp_path / "quarantine").iterdir())) == 2 * 3


def test_what_is_older_than_a_moment_goes_with_its_reason_and_younger_objects_stay(tmp_path):
    quarantine = InstanceStore(tmp_path).quarantine
    old, young = quarantine.put(b"old", "why"), quarantine.put(b"young", "why")
    an_hour_ago = time.time() - 3600
    os.utime(tmp_path / old, (an_hour_ago - 1, an_hour_ago - 1))
    assert quarantine.remove_older_than(an_hour_ago) == 1
    assert list(quarantine.relative_paths()) == [young]
    assert len(list((tmp_path / "quarantine").iterdir())) == 2


def test_what_comes_again_is_as_young_as_its_last_coming(tmp_path):
    quarantine = InstanceStore(tmp_path).quarantine
    path = quarantine.put(b"x", "why")
    os.utime(tmp_path / path, (0, 0))
    quarantine.put(b"x", "why")
    assert quarantine.remove_older_than(time.time() - 3600) == 0
