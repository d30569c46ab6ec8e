"""What the demonstration sends: given files, real films beside the project, or drawn phantoms."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicom_io.archive_writer import MANIFEST_NAME, create_export, read_manifest
from dicom_io.errors import MultiMixError
from dicom_io.phantom import draw_phantom, phantom_dataset

REAL_DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
# Of each folder of images so many films, half of them with a mask to compare with by eye.
FILMS_OF_A_FOLDER: Final = 12
PHANTOMS: Final = 6
NOT_CHEST_NAMES: Final = ("extremity", "hip", "dental")


@dataclass(frozen=True)
class StudyToSend:
    """One study of the demonstration.

    Attributes:
        study_uid: Study Instance UID; empty where the file has none.
        name: what the table calls it, free of patient data.
        paths: its DICOM files.
        must_be_rejected: True for films known not to show a chest.
        must_have_results: True for films known to show one.
    """

    study_uid: str
    name: str
    paths: tuple[Path, ...]
    must_be_rejected: bool = False
    must_have_results: bool = False


def choose_studies(given: Path | None, folder: Path) -> list[StudyToSend]:
    """Find or make the films to send.

    Args:
        given: DICOM file or folder named by the user, or None.
        folder: where films that must be made first are written.

    Raises:
        MultiMixError: the given path holds no file.
    """
    if given is not None:
        return _group(_files_of(given))
    if REAL_DATA.is_dir():
        return [*_real_films(folder), *_real_dicom_files(REAL_DATA / "dicom")]
    return _phantoms(folder)


def _files_of(given: Path) -> list[Path]:
    if not given.exists():
        raise MultiMixError(f"{given} does not exist; DEMO_STUDIES names DICOM files or a folder")
    paths = [given] if given.is_file() else sorted(p for p in given.rglob("*") if p.is_file())
    if not paths:
        raise MultiMixError(f"{given} holds no file")
    return paths


def _group(paths: list[Path]) -> list[StudyToSend]:
    """Files by study; what is no DICOM at all cannot be sent and is left out."""
    by_study: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            header = dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        by_study[str(header.get("StudyInstanceUID") or path)].append(path)
    return [
        StudyToSend(study_uid=uid, name=files[0].stem[:40], paths=tuple(files))
        for uid, files in by_study.items()
    ]


def _real_dicom_files(folder: Path) -> Iterator[StudyToSend]:
    for study in _group(sorted(folder.glob("*.dcm"))):
        other = study.name.startswith(NOT_CHEST_NAMES)
        yield StudyToSend(
            study.study_uid,
            study.name,
            study.paths,
            must_be_rejected=other,
            must_have_results=not other,
        )


def _real_films(folder: Path) -> Iterator[StudyToSend]:
    """Held-out films of each image folder, as DX objects made by the archive writer."""
    for images in sorted(p.parent for p in REAL_DATA.glob(f"*/{MANIFEST_NAME}")):
        held_out = [row for row in read_manifest(images) if row.split in ("test", "val")]
        step = max(1, len(held_out) // FILMS_OF_A_FOLDER)
        chosen = held_out[::step][:FILMS_OF_A_FOLDER]
        export = folder / images.name
        for _ in create_export(chosen, export):
            continue
        names = _names_of(export)
        for study in _group(sorted(export.rglob("image.dcm"))):
            name = names[str(dcmread(study.paths[0], stop_before_pixels=True).SOPInstanceUID)]
            yield StudyToSend(study.study_uid, name, study.paths)


def _names_of(export: Path) -> dict[str, str]:
    with (export / "attribution.csv").open(newline="") as file:
        return {row["SOPInstanceUID"]: row["image"] for row in csv.DictReader(file)}


def _phantoms(folder: Path) -> list[StudyToSend]:
    folder.mkdir(parents=True, exist_ok=True)
    studies = []
    for seed in range(PHANTOMS):
        phantom = draw_phantom(seed, 640, 512, pneumonia=bool(seed % 2))
        dataset = phantom_dataset(phantom)
        path = folder / f"phantom-{seed}-{phantom.label}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        studies.append(
            StudyToSend(str(dataset.StudyInstanceUID), path.stem, (path,), must_have_results=True)
        )
    return studies
