"""Which rows a run used for what, stored beside it and checked when it is resumed.

::

    RUN/splits.csv    SOPInstanceUID, use (train, validation or the export's own other split; empty
                      for none), labelled and masked (1 where label or mask is learnt from)

How patients are drawn may differ between versions of this program. What a run has learnt from does
not, so whatever speaks of a finished run reads it here.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.image_table import ImageRecord
from model.splits import Pools, divide_as_configured, without_one_class_labels

SPLITS_NAME: Final = "splits.csv"
_COLUMNS: Final = ("SOPInstanceUID", "use", "labelled", "masked")


def write_splits(out: Path, records: Sequence[ImageRecord], pools: Pools) -> None:
    """Store the use of every row of a new run."""
    with (out / SPLITS_NAME).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((_COLUMNS, *_lines(records, pools)))


def require_same_splits(out: Path, records: Sequence[ImageRecord], pools: Pools) -> None:
    """Refuse to go on with a run whose rows would be used for something else now.

    A run of an earlier version, which stored no splits, is let through.

    Raises:
        TrainingError: a row's use differs, or the file is damaged.
    """
    if not (out / SPLITS_NAME).exists():
        return
    differing = {*_stored_lines(out)} ^ {_COLUMNS, *_lines(records, pools)}
    if differing:
        images = len({line[0] for line in differing if line})
        raise TrainingError(
            f"{images} images would be used otherwise than {out / SPLITS_NAME} says; was the "
            "export changed? Start another run"
        )


def pools_of_run(out: Path, records: Sequence[ImageRecord], config: TrainingConfig) -> Pools:
    """What a run used each row for; divided anew where an earlier version stored nothing.

    Raises:
        TrainingError: the rows cannot have been used as stored, or the file is damaged.
    """
    if not (out / SPLITS_NAME).exists():
        return divide_as_configured(records, config)
    stored = {line[0]: line[1:] for line in _stored_lines(out) if line}
    usable = without_one_class_labels(records)

    def rows(*lines: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(
            row
            for row, record in enumerate(usable)
            if record.split in (None, "train") and stored.get(record.sop_instance_uid) in lines
        )

    unannotated, label = ("train", "0", "0"), ("train", "1", "0")
    mask, both = ("train", "0", "1"), ("train", "1", "1")
    labelled = tuple(row for row in rows(label, both) if usable[row].class_index >= 0)
    validation = rows(("validation", "0", "0"))
    known = {*labelled, *validation}
    pools = Pools(
        labelled=labelled,
        masked=tuple(row for row in rows(mask, both) if usable[row].has_mask),
        unlabelled=rows(unannotated, label, mask, both),
        validation=validation,
        classes=tuple(r.class_index if row in known else -1 for row, r in enumerate(usable)),
    )
    require_same_splits(out, records, pools)
    return pools


def in_stored_order(out: Path, records: Sequence[ImageRecord], rows: Sequence[int]) -> list[int]:
    """Rows in the order in which a run had them, so that their content gives the run's hash.

    Args:
        out: the run's folder.
        records: those of ``pools_of_run``.
        rows: some of them.

    Raises:
        TrainingError: the file is damaged.
    """
    if not (out / SPLITS_NAME).exists():
        return list(rows)
    place = {line[0]: number for number, line in enumerate(_stored_lines(out)) if line}
    return sorted(rows, key=lambda row: place[records[row].sop_instance_uid])


def _stored_lines(out: Path) -> list[tuple[str, ...]]:
    path = out / SPLITS_NAME
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [tuple(line) for line in csv.reader(file)]
    except (csv.Error, UnicodeDecodeError) as cause:
        raise TrainingError(f"{path} is damaged; start another run") from cause


def _lines(records: Sequence[ImageRecord], pools: Pools) -> Iterator[tuple[str, ...]]:
    training, validation = set(pools.unlabelled), set(pools.validation)
    labelled, masked = set(pools.labelled), set(pools.masked)
    for row, record in enumerate(records):
        of_another = "" if record.split == "train" else record.split or ""
        use = "train" if row in training else "validation" if row in validation else of_another
        flags = (str(int(row in rows)) for rows in (labelled, masked))
        yield (record.sop_instance_uid, use, *flags)
