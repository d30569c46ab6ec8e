import hashlib
import random
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_io.errors import OutOfSpace, StorageError
from dicom_io.part10 import dataset_offset
from dicom_io.storage import InstanceStore
from tests.dicom_io.peers import DX, encoded, radiograph


def keep(store, content: bytes, **uids):
    names = {
        "transfer_syntax_uid": str(ExplicitVRLittleEndian),
        "sop_class_uid": str(DX),
        "sop_instance_uid": "2.25.1",
    }
    return store.keep(content, **{**names, **uids})


def files_of(store):
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def test_what_is_kept_is_a_part_10_file_with_the_received_bytes_unchanged(store):
    film = radiograph()
    content = encoded(film)
    stored = keep(store, content, sop_instance_uid=str(film.SOPInstanceUID))

    file = store.path_of(stored.relative_path).read_bytes()
    assert (
        file[dataset_offset(file) :] == content == store.read_encoded_dataset(stored.relative_path)
    )
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert stored.size == len(content)
    read = store.read(stored.relative_path)
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert read.file_meta.MediaStorageSOPInstanceUID == film.SOPInstanceUID
    assert (read.pixel_array == film.pixel_array).all()


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    ],
)
def test_a_dataset_of_our_own_is_kept_in_its_transfer_syntax(store, syntax):
    film = radiograph(transfer_syntax=syntax)
    stored = store.keep_dataset(film)
    read = store.read(stored.relative_path)
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.PatientName == "Canary^Patient"
    assert read.PixelData == film.PixelData
    assert stored.sop_instance_uid == film.SOPInstanceUID


def test_the_same_instance_twice_is_one_file(store):
    first, second = keep(store, b"x" * 1000), keep(store, b"x" * 1000)
    assert first == second
    assert len(files_of(store)) == 1


def test_other_bytes_under_the_same_uid_are_another_file(store):
    assert keep(store, b"x" * 1000).relative_path != keep(store, b"y" * 1000).relative_path
    assert len(files_of(store)) == 2


def test_the_same_bytes_in_another_transfer_syntax_are_another_file(store):
    explicit = keep(store, b"x" * 1000)
    implicit = keep(store, b"x" * 1000, transfer_syntax_uid=str(ImplicitVRLittleEndian))
    assert explicit.relative_path != implicit.relative_path
    assert explicit.sha256 == implicit.sha256


def test_files_and_folders_are_for_the_node_alone(store):
    keep(store, b"x")
    store.quarantine.put(b"y", "why")
    for path in [store.root, *store.root.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_damaged_file_is_noticed_and_healed_when_the_instance_comes_again(store):
    stored = keep(store, b"x" * 1000)
    store.verify(stored.relative_path, stored.sha256)
    path = store.path_of(stored.relative_path)
    path.write_bytes(path.read_bytes()[:-1] + b"y")
    with pytest.raises(StorageError, match="changed"):
        store.verify(stored.relative_path, stored.sha256)
    again = keep(store, b"x" * 1000)
    store.verify(again.relative_path, again.sha256)


@pytest.mark.parametrize("damage", [b"", b"not DICOM at all", bytes(200)])
def test_a_file_that_is_no_longer_dicom_is_an_error_and_no_crash(store, damage):
    stored = keep(store, b"x" * 1000)
    store.path_of(stored.relative_path).write_bytes(damage)
    with pytest.raises(StorageError):
        store.verify(stored.relative_path, stored.sha256)
    with pytest.raises(StorageError):
        store.read(stored.relative_path)


def test_a_missing_file_is_an_error(store):
    stored = keep(store, b"x" * 1000)
    store.remove(stored.relative_path)
    with pytest.raises(StorageError):
        store.verify(stored.relative_path, stored.sha256)
    store.remove(stored.relative_path)


def test_below_the_low_water_mark_nothing_is_written(tmp_path):
    store = InstanceStore(tmp_path, low_water_mark_bytes=1 << 60)
    assert not store.disk.has_room()
    with pytest.raises(OutOfSpace, match="low-water"):
        keep(store, b"x")
    assert files_of(store) == []


def test_a_write_that_the_system_cuts_off_leaves_nothing_and_says_so(tmp_path):
    script = f"""
import resource
from pathlib import Path
from dicom_io.errors import OutOfSpace
from dicom_io.storage import InstanceStore
store = InstanceStore(Path({str(tmp_path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.keep(bytes(100_000), transfer_syntax_uid="1.2.840.10008.1.2", sop_class_uid="1.2",
               sop_instance_uid="1.2.3")
except OutOfSpace as full:
    print("OutOfSpace:", full)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("OutOfSpace: cannot write"), done.stdout + done.stderr
    assert files_of(InstanceStore(tmp_path)) == []


def test_a_writer_killed_at_any_moment_leaves_only_whole_instances(tmp_path):
    script = f"""
import itertools, sys
from pathlib import Path
from dicom_io.storage import InstanceStore
store = InstanceStore(Path({str(tmp_path)!r}))
for number in itertools.count():
    store.keep(number.to_bytes(8, "big") * 50_000, transfer_syntax_uid="1.2.840.10008.1.2",
               sop_class_uid="1.2", sop_instance_uid=f"1.2.{{number}}")
    print(number, flush=True)
"""
    acknowledged = 0
    for seed in range(3):
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"0\n"
        time.sleep(random.Random(seed).uniform(0.01, 0.1))
        writer.send_signal(signal.SIGKILL)
        acknowledged = max(acknowledged, 1 + len(writer.stdout.read().split()))
        writer.wait()
    store = InstanceStore(tmp_path)
    whole = 0
    for relative_path in store.relative_paths():
        content = store.read_encoded_dataset(relative_path)
        assert hashlib.sha256(content).hexdigest() in relative_path
        assert len(content) == 400_000
        whole += 1
    assert whole >= acknowledged


def test_many_threads_may_keep_the_same_instances_at_once(store):
    contents = [bytes([number]) * 10_000 for number in range(20)]
    failures = []

    def keep_all():
        try:
            for content in contents:
                keep(store, content)
        except StorageError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=keep_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(store.relative_paths())) == len(contents)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uid=st.text(max_size=200)
    | st.text("0123456789.", min_size=1, max_size=70)
    | st.sampled_from(["../" * 20 + "etc/passwd", "1." * 5000, "..", ".", "1\0", "\u0661.\u0662"])
)
def test_no_uid_reaches_a_path(store, uid):
    try:
        stored = keep(store, b"x", sop_instance_uid=uid, sop_class_uid=uid)
    except StorageError:
        return
    path = store.path_of(stored.relative_path)
    assert path.is_relative_to(store.root / "instances")
    assert set(path.name) <= set("0123456789abcdef-.dcm")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["..", ".", "instances", "\0", "a", "", "\u202e"])).map("/".join))
def test_no_path_leads_out_of_the_store(store, relative_path):
    try:
        path = store.path_of(relative_path)
    except StorageError:
        return
    assert path.resolve().is_relative_to(store.root)


def test_a_link_inside_the_store_does_not_lead_out_of_it(store, tmp_path):
    (store.root / "instances" / "link").symlink_to(tmp_path)
    with pytest.raises(StorageError):
        store.path_of("instances/link/x")


def test_an_object_that_cannot_be_encoded_is_an_error_without_its_values(store):
    film = radiograph()
    film.PatientName = "Canary^Patient"
    film.add_new("Rows", "US", "Canary")
    with pytest.raises(StorageError) as caught:
        store.keep_dataset(film)
    assert "Canary" not in str(caught.value)
    assert files_of(store) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="folders"):
        InstanceStore(tmp_path / "file" / "store")


def test_stored_files_open_in_pydicom_by_their_path(store):
    stored = store.keep_dataset(radiograph(7))
    assert dcmread(store.path_of(stored.relative_path)).SOPInstanceUID == "2.25.1000007"
