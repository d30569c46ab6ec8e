"""What the files of an archive export are: image, mask, label, report, or nothing usable."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """One image of an export, as its header, ``labels.csv`` and reports describe it.

    Attributes:
        path: of the file.
        sop_instance_uid: of the image.
        study_uid: Study Instance UID.
        patient: Patient ID; splits are made by it.
        label: ``normal``, ``pneumonia`` or None.
        split: as ``labels.csv`` says, or None.
        mask_paths: SEG files with lung segments that reference the image.
        rows: of the image.
        columns: of the image.
        source: Institution Name, or empty.
        manufacturer: or empty.
        station: Station Name, or empty; which machine of the maker's made the film.
        sender: Source Application Entity Title of the file (PS3.10 7.1), or empty.
        view: ``PA``, ``AP``, ``AP Supine`` or whatever View Position says; or empty.
        sex: ``M``, ``F``, ``O`` or empty.
        age_years: or None.
        pixel_spacing_mm: Pixel Spacing (row, column), or None.
        patient_orientation: where rows and columns run to, e.g. ``("L", "F")``; or empty.
        photometric: Photometric Interpretation, or empty.
    """

    path: Path
    sop_instance_uid: str
    study_uid: str
    patient: str
    label: str | None
    split: str | None
    mask_paths: tuple[Path, ...]
    rows: int
    columns: int
    source: str
    manufacturer: str
    station: str
    sender: str
    view: str
    sex: str
    age_years: float | None
    pixel_spacing_mm: tuple[float, float] | None
    patient_orientation: tuple[str, ...]
    photometric: str


@dataclass(frozen=True, slots=True)
class ExportedMask:
    """One SEG of an export that has a lung segment.

    Attributes:
        path: of the file.
        images: SOP Instance UIDs of the images that it was drawn on.
    """

    path: Path
    images: frozenset[str]


@dataclass(frozen=True, slots=True)
class ExportedLabel:
    """One line of a ``labels.csv``.

    Attributes:
        sop_instance_uid: of the image that it speaks of.
        label: ``normal``, ``pneumonia`` or None.
        split: or None.
        table: path of the ``labels.csv``.
    """

    sop_instance_uid: str
    label: str | None
    split: str | None
    table: Path


@dataclass(frozen=True, slots=True)
class ReportedClass:
    """One statement of a structured report.

    Attributes:
        label: ``normal``, ``pneumonia``, or None where the report leaves it open.
        images: SOP Instance UIDs of the images that it speaks of; empty where the report names no
            image and speaks of its study.
    """

    label: str | None
    images: frozenset[str]


@dataclass(frozen=True, slots=True)
class ExportedReport:
    """One structured report that says something of pneumonia, or takes an earlier one back.

    Attributes:
        path: of the file.
        sop_instance_uid: of the report.
        study_uid: Study Instance UID.
        said: its statements.
        replaces: SOP Instance UIDs of the reports that it supersedes.
    """

    path: Path
    sop_instance_uid: str
    study_uid: str
    said: tuple[ReportedClass, ...]
    replaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file, or a line of a table, that cannot be used, and why.

    Attributes:
        path: of the file.
        reason: for a person, free of patient data.
    """

    path: Path
    reason: str


ExportItem = ExportedImage | ExportedMask | ExportedLabel | ExportedReport | Unreadable
