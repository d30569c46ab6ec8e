"""Read a folder of DICOM files without network, broker or database server.

    python -m worker batch IN OUT --results seg,sc,sr

OUT gets ``results.csv`` (one row a file) and, in ``objects/``, the result objects of each film. A
second start goes on where the first stopped, and tries again what had failed; a bad file becomes a
row, never an end.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset
from rich.console import Console
from rich.progress import track

from dicom_io.decoding import DecodingLimits, DecodingProcess
from dicom_io.errors import DecodingError, ImageRejected, StorageError
from dicom_io.result_profile import DEFAULT_PROFILE, profile_text
from dicom_io.result_set import build_result_set
from dicom_io.uids import ResultKind
from model.predictor import Predictor
from worker.reading import read_radiograph


@dataclass(frozen=True)
class BatchRow:
    """One line of ``results.csv``.

    Attributes:
        source: path below IN.
        sop_instance_uid: of the file, or empty where it could not be read.
        status: ``done``, ``rejected`` or ``failed``.
        reason: why, where there is no result.
        verdict: ``normal`` or ``pneumonia``.
        probability: calibrated, of pneumonia.
        lung_area_percent: of the film.
        seg: path of the SEG below OUT, where it was asked for; as are the next three.
        sc: path of the Secondary Capture.
        labelmap: path of the label map SEG.
        gsps: path of the presentation state.
        sr: path of the report.
        lung_area_cm2: both lungs; empty where the source has no Pixel Spacing.
        operating_point: the probability from which on the verdict is pneumonia.
        model: name and version.
    """

    source: str
    sop_instance_uid: str = ""
    status: str = ""
    reason: str = ""
    verdict: str = ""
    probability: str = ""
    lung_area_percent: str = ""
    seg: str = ""
    sc: str = ""
    labelmap: str = ""
    gsps: str = ""
    sr: str = ""
    lung_area_cm2: str = ""
    operating_point: str = ""
    model: str = ""


COLUMNS = tuple(field.name for field in fields(BatchRow))


def run_batch(
    source: Path,
    out: Path,
    predictor: Predictor,
    kinds: frozenset[ResultKind] = DEFAULT_PROFILE,
    limits: DecodingLimits | None = None,
) -> list[BatchRow]:
    """Read every file below a folder that ``OUT/results.csv`` does not call done or rejected yet.

    What failed before may have had too little time or room; its row makes way for the new one.

    Args:
        source: a DICOM file, or a folder of any depth.
        out: created where needed; rows are appended as they are made.
        predictor: the model.
        kinds: which result objects to make of each film.
        limits: of opening and decoding one file.

    Returns:
        All rows, those of earlier starts included.
    """
    (out / "objects").mkdir(parents=True, exist_ok=True)
    table = out / "results.csv"
    earlier = _complete_rows(table)
    settled = {row.source for row in earlier if row.status != "failed"}
    todo = [path for path in _files(source) if _relative(path, source) not in settled]
    retried = {_relative(path, source) for path in todo}
    done = [row for row in earlier if row.source not in retried]
    _write_table(table, done)
    with table.open("a", newline="") as file, DecodingProcess(limits) as decoding:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        for path in track(todo, description="reading", disable=not todo):
            row = _read_file(path, _relative(path, source), out, predictor, kinds, decoding)
            writer.writerow(asdict(row))
            file.flush()
            os.fsync(file.fileno())
            done.append(row)
    return done


def any_failed(rows: list[BatchRow]) -> bool:
    """Whether a file could not be read; one that was rejected could."""
    return any(row.status == "failed" for row in rows)


def print_summary(rows: list[BatchRow], out: Path, console: Console) -> None:
    """Say how many films were read, and why the others were not."""
    counts = Counter(row.status for row in rows)
    console.print(
        f"{len(rows)} files: {counts['done']} read, {counts['rejected']} rejected, "
        f"{counts['failed']} failed; {out / 'results.csv'}",
        soft_wrap=True,
    )
    for reason, count in Counter(r.reason for r in rows if r.status != "done").most_common():
        console.print(f"  {count} x {reason}", highlight=False)


def _read_file(
    path: Path,
    name: str,
    out: Path,
    predictor: Predictor,
    kinds: frozenset[ResultKind],
    decoding: DecodingProcess,
) -> BatchRow:
    """Read one file into a row; whatever is wrong with the file stays in the row."""
    sop_instance_uid = ""
    try:
        dataset = decoding.open(path)
        sop_instance_uid = str(dataset.get("SOPInstanceUID", ""))
        reading = read_radiograph(dataset, predictor, decoding.decode)
        built = build_result_set(
            dataset, reading.display_hw, reading.findings, datetime.now(UTC), kinds
        )
        paths = {profile_text({kind}): _write(result, out) for kind, result in built.items()}
    except ImageRejected as rejection:
        reason = str(rejection).removeprefix("rejected: ")
        return BatchRow(name, sop_instance_uid, "rejected", reason)
    except (DecodingError, StorageError) as problem:
        return BatchRow(name, sop_instance_uid, "failed", str(problem))
    except Exception as problem:  # noqa: BLE001 - one bad file must never stop the rest
        # The text of a foreign error may quote the dataset; its kind never does.
        return BatchRow(name, sop_instance_uid, "failed", f"internal: {type(problem).__name__}")
    findings = reading.findings
    area_cm2 = reading.lung_area_cm2
    return BatchRow(
        source=name,
        sop_instance_uid=sop_instance_uid,
        status="done",
        verdict=findings.verdict.value,
        probability=f"{findings.probability:.4f}",
        lung_area_percent=f"{reading.lung_area_percent:.2f}",
        lung_area_cm2="" if area_cm2 is None else f"{area_cm2:.1f}",
        operating_point=f"{findings.operating_point:.4f}",
        model=f"{findings.model.name} {findings.model.version}",
        **paths,
    )


def _write(dataset: Dataset, out: Path) -> str:
    """Write a result under its own derived UID and give its path below OUT."""
    name = f"objects/{dataset.Modality}-{dataset.SOPInstanceUID}.dcm"
    unfinished = out / f"{name}.part"
    dataset.save_as(unfinished, enforce_file_format=True)
    unfinished.replace(out / name)
    return name


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for folder, folders, names in os.walk(source):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def _relative(path: Path, source: Path) -> str:
    return str(path.relative_to(source)) if path != source else path.name


def _complete_rows(table: Path) -> list[BatchRow]:
    """Rows of an earlier start; a last row cut off by a power loss is dropped."""
    text = table.read_text() if table.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    return [
        BatchRow(**{column: row.get(column) or "" for column in COLUMNS})
        for row in csv.DictReader(io.StringIO(whole))
        if row.get("source")
    ]


def _write_table(table: Path, rows: list[BatchRow]) -> None:
    """Write the file anew, so that it has the columns of this version whatever it had before."""
    unfinished = table.with_suffix(".csv.part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    unfinished.replace(table)
