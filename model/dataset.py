"""Archive exports, read once into files of network inputs.

Every image goes through ``dicom_io.pixels.network_image`` into a file of uint8 rows beside its lung
mask; later starts only check that no file changed.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import track

from dicom_io.archive import ExportedImage, index_export, read_dataset, read_lung_mask
from dicom_io.errors import MultiMixError, TrainingError
from dicom_io.pixels import PREPROCESSING_VERSION, decode, network_image, resize
from model.image_table import TABLE_SIDE, ImageRecord, ImageTable
from model.splits import require_disjoint_patients
from model.stored_rows import StoredRows, join_rows, open_rows, write_rows

CACHE_LAYOUT = "3"


@dataclass(frozen=True)
class _Content:
    """What ``table.json`` holds."""

    records: tuple[ImageRecord, ...]
    problems: tuple[tuple[str, str], ...]


CONTENT = TypeAdapter(_Content)


def default_cache_folder() -> Path:
    """Where preprocessed exports are kept unless told otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "multimix"


def load_exports(
    exports: Sequence[Path], cache_folder: Path | None = None, jobs: int | None = None
) -> ImageTable:
    """Read archive exports through the cache and join them into one table.

    Args:
        exports: folders of DICOM files, any depth; each may hold a ``labels.csv``.
        cache_folder: where the preprocessed images are kept.
        jobs: decoding processes; None for one for each core.

    Raises:
        TrainingError: no image could be read, or a patient is in two splits.
    """
    folder = cache_folder or default_cache_folder()
    tables = [_load_export(export, folder, jobs) for export in exports]
    table = ImageTable(
        records=tuple(record for table in tables for record in table.records),
        images=join_rows(table.images for table in tables),
        masks=join_rows(table.masks for table in tables),
        problems=tuple(problem for table in tables for problem in table.problems),
    )
    if not table.records:
        raise TrainingError(
            f"no readable image in {', '.join(map(str, exports))}; "
            "see `python -m dicom_io.archive check`"
        )
    require_disjoint_patients(table.records)
    return table


@dataclass(frozen=True)
class _StoredExport:
    """One export in its cache; the fields are those of ``ImageTable``."""

    records: tuple[ImageRecord, ...]
    images: StoredRows
    masks: StoredRows
    problems: tuple[tuple[str, str], ...]


def _load_export(export: Path, cache_folder: Path, jobs: int | None) -> _StoredExport:
    """One export from the cache, which is written where a file changed since or there is none."""
    if not export.is_dir():
        raise TrainingError(f"{export} is no folder; --data takes an archive export")
    cache = cache_folder / fingerprint(export)
    stored = _open_cache(cache)
    if stored is None:
        _write_cache(export, cache, jobs)
        stored = _open_cache(cache)
    if stored is None:
        raise TrainingError(f"{cache} was written but cannot be read back; is its disk full?")
    return stored


def fingerprint(export: Path) -> str:
    """Hash of every file's relative path, size and time of change, and of the preprocessing."""
    digest = hashlib.sha256(f"{PREPROCESSING_VERSION}/{CACHE_LAYOUT}/{export.resolve()}".encode())
    for line in sorted(_file_facts(export, export)):
        digest.update(line.encode())
    return digest.hexdigest()[:32]


def _file_facts(folder: Path, root: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _file_facts(Path(entry.path), root)
            else:
                facts = entry.stat()
                name = Path(entry.path).relative_to(root)
                yield f"{name}|{facts.st_size}|{facts.st_mtime_ns}\n"


def _write_cache(export: Path, cache: Path, jobs: int | None) -> None:
    """Decode an export into rows; the table is written last and makes the cache valid."""
    (cache / "table.json").unlink(missing_ok=True)
    index = index_export(export)
    cache.mkdir(parents=True, exist_ok=True)
    shape = (max(len(index.images), 1), TABLE_SIDE, TABLE_SIDE)
    records: list[ImageRecord] = []
    problems = [(str(path), reason) for path, reason in index.unreadable]
    with (
        write_rows(cache / "images.npy", shape) as images,
        write_rows(cache / "masks.npy", shape) as masks,
        ProcessPoolExecutor(jobs or os.cpu_count()) as pool,
    ):
        rows = pool.map(_preprocess, index.images, repeat(TABLE_SIDE), chunksize=16)
        for image, row in track(
            zip(index.images, rows, strict=True),
            description=f"reading {export.name}",
            total=len(index.images),
            console=Console(stderr=True),  # standard output may be read by a program
        ):
            problems.extend(row.problems)
            if row.image is None:
                continue
            images.write(len(records), row.image)
            if row.mask is not None:
                masks.write(len(records), row.mask)
            records.append(_record_of(image, has_mask=row.mask is not None))
    content = {"records": [asdict(record) for record in records], "problems": problems}
    unfinished = cache / "table.json.part"
    unfinished.write_text(json.dumps(content))
    unfinished.replace(cache / "table.json")


@dataclass(frozen=True)
class _Preprocessed:
    image: NDArray[np.uint8] | None
    mask: NDArray[np.uint8] | None
    problems: tuple[tuple[str, str], ...]


def _preprocess(image: ExportedImage, side: int) -> _Preprocessed:
    """Decode one image and its mask; whatever cannot be used becomes a reported problem."""
    try:
        pixels = network_image(decode(read_dataset(image.path)), side)
    except (MultiMixError, OSError) as problem:
        return _Preprocessed(None, None, ((str(image.path), str(problem)),))
    if not image.mask_paths:
        return _Preprocessed(pixels, None, ())
    try:
        mask_hw = read_lung_mask(image.mask_paths, image)
    except (MultiMixError, OSError) as problem:
        return _Preprocessed(pixels, None, ((str(image.mask_paths[0]), str(problem)),))
    small_hw = (resize(mask_hw.astype(np.float32), side, side) > 0.5).astype(np.uint8)
    return _Preprocessed(pixels, small_hw, ())


def _record_of(image: ExportedImage, *, has_mask: bool) -> ImageRecord:
    return ImageRecord(
        sop_instance_uid=image.sop_instance_uid,
        path=str(image.path),
        mask_paths=tuple(map(str, image.mask_paths)),
        patient=image.patient,
        label=image.label,
        split=image.split,
        has_mask=has_mask,
        source=image.source,
        view=image.view,
        sex=image.sex,
        age_years=image.age_years,
        manufacturer=image.manufacturer,
        rows=image.rows,
        columns=image.columns,
        patient_orientation=image.patient_orientation,
        pixel_spacing_mm=image.pixel_spacing_mm,
    )


def _open_cache(cache: Path) -> _StoredExport | None:
    """A finished cache, or None where there is none or it is damaged."""
    try:
        content = CONTENT.validate_json((cache / "table.json").read_bytes())
        images = open_rows(cache / "images.npy", len(content.records))
        masks = open_rows(cache / "masks.npy", len(content.records))
    except (OSError, ValueError):
        return None
    return _StoredExport(content.records, images, masks, content.problems)
