"""Which rows a run used for what, stored beside it and checked when it is resumed.

::

    RUN/splits.csv    SOPInstanceUID, use (train, validation or the export's own other split),
                      labelled and masked (1 where the row's label or mask is learnt from)
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dicom_io.errors import TrainingError
from model.image_table import ImageRecord
from model.splits import Pools

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
    path = out / SPLITS_NAME
    if not path.exists():
        return
    try:
        with path.open(newline="", encoding="utf-8") as file:
            stored = {tuple(line) for line in csv.reader(file)}
    except (csv.Error, UnicodeDecodeError) as cause:
        raise TrainingError(f"{path} is damaged; start another run") from cause
    differing = stored ^ {_COLUMNS, *_lines(records, pools)}
    if differing:
        images = len({line[0] for line in differing if line})
        raise TrainingError(
            f"{images} images would be used otherwise than {path} says; was the export changed? "
            "Start another run"
        )


def _lines(records: Sequence[ImageRecord], pools: Pools) -> Iterator[tuple[str, ...]]:
    training, validation = set(pools.unlabelled), set(pools.validation)
    labelled, masked = set(pools.labelled), set(pools.masked)
    for row, record in enumerate(records):
        use = "train" if row in training else "validation" if row in validation else record.split
        flags = (str(int(row in rows)) for rows in (labelled, masked))
        yield (record.sop_instance_uid, use or "", *flags)
