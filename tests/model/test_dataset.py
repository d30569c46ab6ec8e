import csv
import os
import shutil
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread

from dicom_io.errors import TrainingError
from dicom_io.pixels import decode, network_image
from model.dataset import load_exports
from model.export_cache import default_cache_folder
from model.metrics import score_mask
from model.stored_rows import StoredRows
from tests.model.exports import manifest_row, write_export
from tests.model.films import draw_film, film_table

COUNT = 6


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("export"), COUNT)


@pytest.fixture
def export(written, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(written, tmp_path / "export")


def load(*exports, cache):
    return load_exports(exports, cache, jobs=1)


def uids_by_film(export):
    with (export / "attribution.csv").open(newline="") as file:
        return {row["image"]: row["SOPInstanceUID"] for row in csv.DictReader(file)}


def row_of(table, uid):
    return [record.sop_instance_uid for record in table.records].index(uid)


def image_file(export, uid):
    return next(p for p in export.rglob("image.dcm") if dcmread(p).SOPInstanceUID == uid)


def test_every_image_is_there_once_as_the_worker_would_see_it(export, tmp_path):
    table = load(export, cache=tmp_path / "cache")
    assert len(table.records) == len({r.sop_instance_uid for r in table.records}) == COUNT
    assert table.problems == ()
    for row, record in enumerate(table.records):
        seen_by_worker = network_image(decode(dcmread(record.path)), 256)
        assert np.array_equal(table.images[row], seen_by_worker)


def test_masks_labels_and_facts_stand_beside_their_own_image(export, tmp_path):
    table = load(export, cache=tmp_path / "cache")
    for number in range(COUNT):
        row = row_of(table, uids_by_film(export)[f"f{number}"])
        record = table.records[row]
        assert record.label == ("pneumonia" if number % 2 else "normal")
        assert record.patient == f"p{number}"
        assert (record.source, record.view, record.sex) == ("Clinic", "PA", "F")
        assert (record.rows, record.columns, record.age_years) == (128, 96, 40.0)
        assert record.has_mask is (number % 4 != 3)
        assert record.split == ("train" if record.has_mask else "test")
        drawn_hw = draw_film(number, pneumonia=False).mask_hw > 0
        agreement = score_mask(np.asarray(table.masks[row]) > 0, drawn_hw).dice
        assert agreement > 0.97 if record.has_mask else agreement == 0


def test_a_second_start_decodes_nothing(export, tmp_path):
    first = load(export, cache=tmp_path / "cache")
    # Bytes that change behind an unchanged size and date would only be seen by decoding again.
    path = image_file(export, first.records[0].sop_instance_uid)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"\0" * path.stat().st_size)
    os.utime(path, ns=times)
    second = load(export, cache=tmp_path / "cache")
    assert second.records == first.records
    assert np.array_equal(second.images, first.images)
    assert np.array_equal(second.masks, first.masks)
    assert isinstance(second.images, StoredRows)


def test_a_changed_file_is_read_again(export, tmp_path):
    labels = export / "labels.csv"
    labels.write_text(labels.read_text().replace("pneumonia", "normal"))
    table = load(export, cache=tmp_path / "cache")
    assert {record.label for record in table.records} == {"normal"}


@pytest.mark.parametrize("damage", ["lines", "rows", "half a line", "half a row"])
def test_what_is_damaged_in_the_cache_is_read_again(export, tmp_path, damage):
    cache = tmp_path / "cache"
    first = load(export, cache=cache)
    (folder,) = cache.iterdir()
    lines, rows = folder / "images.jsonl", folder / "images.rows"
    if damage == "lines":
        lines.write_text('{"content": 3}\nno JSON\n')
    elif damage == "rows":
        rows.write_bytes(b"")
    elif damage == "half a line":
        lines.write_bytes(lines.read_bytes()[:-20])
    else:
        rows.write_bytes(rows.read_bytes()[:-1000])
    for _ in range(2):
        again = load(export, cache=cache)
        assert again.records == first.records
        assert np.array_equal(again.images[:], first_images(export))


def first_images(export):
    """Network inputs in the order of the table, made without any cache."""
    films = sorted(map(dcmread, export.rglob("image.dcm")), key=lambda film: film.SOPInstanceUID)
    return np.stack([network_image(decode(film), 256) for film in films])


def test_an_unreadable_image_ends_in_the_problems_and_not_in_a_crash(export, tmp_path):
    uid = uids_by_film(export)["f0"]
    path = image_file(export, uid)
    dataset = dcmread(path)
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(path)
    for _ in range(2):  # a later start says so, too
        table = load(export, cache=tmp_path / "cache")
        assert len(table.records) == COUNT - 1
        assert uid not in {record.sop_instance_uid for record in table.records}
        assert dict(table.problems) == {
            str(path): "the file is shorter than its pixel data; it was truncated",
            str(path.with_name("lungs.dcm")): "a mask without a readable image",
            str(export / "labels.csv"): "1 of its lines name no readable image",
        }


def test_an_image_whose_mask_cannot_be_read_stays_without_it(export, tmp_path):
    uid = uids_by_film(export)["f0"]
    path = image_file(export, uid).with_name("lungs.dcm")
    mask = dcmread(path)
    mask.PixelData = mask.PixelData[: len(mask.PixelData) // 2]
    mask.save_as(path)
    for _ in range(2):  # a later start says so, too
        table = load(export, cache=tmp_path / "cache")
        assert len(table.records) == COUNT
        assert not table.records[row_of(table, uid)].has_mask
        ((named, reason),) = table.problems
        assert named == str(path)
        assert str(path) not in reason, "the path is said once"


def other_clinic(number):
    return (
        manifest_row(number + COUNT)
        .replace("Clinic", "Other")
        .replace(f"-{number + COUNT}.png", f"-{number}.png")
    )


def test_several_exports_become_one_table(export, tmp_path):
    second = write_export(tmp_path / "second", 2, other_clinic)
    table = load(export, second, cache=tmp_path / "cache")
    assert Counter(r.source for r in table.records) == {"Clinic": COUNT, "Other": 2}
    alone = load(second, cache=tmp_path / "cache")
    rows = [row_of(table, record.sop_instance_uid) for record in alone.records]
    assert np.array_equal(table.images[rows], alone.images)
    assert np.array_equal(table.masks[rows], alone.masks)


def test_the_order_of_the_exports_changes_neither_rows_nor_hash(export, tmp_path):
    second = write_export(tmp_path / "second", 2, other_clinic)
    one, other = (
        load(*exports, cache=tmp_path / "cache") for exports in ((export, second), (second, export))
    )
    assert one.records == other.records
    everything = range(len(one.records))
    assert one.content_hash(everything) == other.content_hash(everything)


def test_an_export_that_is_named_again_or_lies_within_another_is_read_once(export, tmp_path):
    alone = load(export, cache=tmp_path / "cache")
    within = next(path for path in export.iterdir() if path.is_dir())
    for exports in ((export, within), (within, export), (export, export / ".." / export.name)):
        table = load(*exports, cache=tmp_path / "cache")
        assert table.records == alone.records
        ((path, reason),) = table.problems
        assert path == str(next(one for one in exports if one != export))
        assert "is read once" in reason


def test_a_film_that_two_exports_hold_counts_once_and_is_a_problem(export, tmp_path):
    copied = shutil.copytree(export, tmp_path / "copied")
    alone = load(export, cache=tmp_path / "cache")
    table = load(export, copied, cache=tmp_path / "cache")
    assert [r.sop_instance_uid for r in table.records] == [
        r.sop_instance_uid for r in alone.records
    ]
    assert {r.path for r in table.records} == {r.path for r in alone.records}
    assert np.array_equal(table.masks, alone.masks)
    assert {Path(path) for path, _ in table.problems} == {*copied.rglob("image.dcm")}
    assert {reason for _, reason in table.problems} == {
        "its SOP Instance UID stands in another file too"
    }


def taken_apart(export, annotations):
    """Move masks and labels of an export elsewhere."""
    annotations.mkdir()
    for path in export.rglob("lungs.dcm"):
        path.rename(annotations / f"{path.parent.name}.dcm")
    (export / "labels.csv").rename(annotations / "labels.csv")
    return annotations


@pytest.mark.parametrize("images_first", [True, False])
def test_masks_and_labels_may_lie_in_another_export_than_their_images(
    export, tmp_path, images_first
):
    together = load(export, cache=tmp_path / "cache")
    annotations = taken_apart(export, tmp_path / "annotations")
    exports = (export, annotations) if images_first else (annotations, export)
    table = load(*exports, cache=tmp_path / "cache")
    assert table.problems == ()
    for apart, beside in zip(table.records, together.records, strict=True):
        assert replace(apart, mask_paths=()) == replace(beside, mask_paths=())
    assert np.array_equal(table.masks, together.masks)


def test_masks_and_labels_without_an_image_are_problems(export, tmp_path):
    second = write_export(tmp_path / "second", 2, other_clinic)
    annotations = taken_apart(second, tmp_path / "annotations")
    table = load(export, annotations, cache=tmp_path / "cache")
    assert len(table.records) == COUNT
    expected = {
        (str(path), "a mask without a readable image") for path in annotations.glob("*.dcm")
    } | {(str(annotations / "labels.csv"), "2 of its lines name no readable image")}
    assert len(expected) == 2
    assert {*table.problems} == expected


def test_a_folder_whose_name_looks_like_markup_is_read_as_any_other(export, tmp_path, capfd):
    odd = export.rename(tmp_path / "[bold]1.2")
    assert len(load(odd, cache=tmp_path / "cache").records) == COUNT
    assert "reading [bold]1.2 " in capfd.readouterr().err


def test_a_cache_that_was_open_to_all_is_closed_to_them(export, tmp_path):
    cache = tmp_path / "cache"
    load(export, cache=cache)
    (folder,) = cache.iterdir()
    folder.chmod(0o755)
    load(export, cache=cache)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_could_not_be_used_is_told_to_whoever_reads_an_export(export, tmp_path, capfd):
    broken = export / "[bold]broken.dcm"
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    table = load(export, cache=tmp_path / "cache")
    ((path, reason),) = table.problems
    assert path == str(broken)
    said = capfd.readouterr()
    assert f"left out {broken}: {reason}\n" in said.err
    assert "left out" not in said.out


def test_a_patient_in_two_splits_is_refused(tmp_path):
    export = write_export(
        tmp_path, 4, lambda number: manifest_row(number).replace(f",p{number},", ",same,")
    )
    with pytest.raises(TrainingError, match="two splits"):
        load(export, cache=tmp_path / "cache")


def test_an_export_without_images_is_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"no readable image in .*empty"):
        load(tmp_path / "empty", cache=tmp_path / "cache")
    with pytest.raises(TrainingError, match=r"none is no folder"):
        load(tmp_path / "none", cache=tmp_path / "cache")


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "multimix"


def test_tensors_are_scaled_and_shrunk_as_the_network_wants_them():
    table = film_table(3)
    images, masks = table.tensors([2, 0], 256)
    assert images.shape == masks.shape == (2, 1, 256, 256)
    expected = torch.from_numpy(table.images[2].astype(np.float32)) / 127.5 - 1
    torch.testing.assert_close(images[0, 0], expected)
    small, small_masks = table.tensors([2, 0], 64)
    assert small.shape == (2, 1, 64, 64)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(images, 4))
    assert set(small_masks.unique().tolist()) == {0.0, 1.0}
    assert float(small_masks.mean()) == pytest.approx(float(masks.mean()), rel=0.02)


def test_the_content_hash_sees_pixels_masks_and_labels_but_no_paths():
    table = film_table(4)
    same = film_table(4, path="/elsewhere")
    assert table.content_hash([0, 1]) == same.content_hash([0, 1])
    assert table.content_hash([0, 1]) != table.content_hash([1, 0])
    assert table.content_hash([0]) != film_table(4, label="pneumonia").content_hash([0])
    changed = film_table(4)
    changed.masks[0, 0, 0] ^= 1
    assert table.content_hash([0]) != changed.content_hash([0])
