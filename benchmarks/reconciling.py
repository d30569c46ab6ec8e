"""How long a start takes to compare store and database, when they agree and when the rows are gone.

    python -m benchmarks.reconciling [--instances 20000]

The instances are one drawn film of 64 x 64 pixels with ever new UIDs. First a database without rows
meets the full store, as after a loss of the database: every instance is read and entered. Then the
two agree, as at any start. Ends with one line of JSON; memory is the peak of the whole process.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import generate_uid

from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.storage import InstanceStore
from worker.database import Database
from worker.intake import DatabaseIntake
from worker.named_files import SETTLED_AFTER_SECONDS
from worker.reconciling import Reconciler


@dataclass(frozen=True)
class Figures:
    """What was measured; times in seconds, memory in MiB."""

    instances: int
    seconds_to_enter_all: float
    seconds_to_compare: float
    peak_memory: float


def main() -> int:
    """Fill a store of its own and reconcile it twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=20_000)
    instances = parser.parse_args().instances
    with tempfile.TemporaryDirectory(prefix="reconciling-") as name:
        figures = measure(Path(name), instances)
    sys.stdout.write(json.dumps(asdict(figures)) + "\n")
    return 0


def measure(folder: Path, instances: int) -> Figures:
    """Enter everything, then compare again."""
    store = InstanceStore(folder / "store")
    fill(store, instances)
    database = Database(f"sqlite:///{folder / 'node.sqlite'}")
    database.upgrade_to_head()
    reconciler = Reconciler(
        database, store, DatabaseIntake(database, "listener", timedelta(), timedelta(seconds=60))
    )
    began = time.monotonic()
    entered = reconciler.reconcile()
    middle = time.monotonic()
    compared = reconciler.reconcile()
    end = time.monotonic()
    if len(entered.entered) != instances or not compared.is_clean or compared.files != instances:
        raise SystemExit("the store was not entered as a whole")
    return Figures(
        instances,
        round(middle - began, 1),
        round(end - middle, 1),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def fill(store: InstanceStore, instances: int) -> None:
    """Keep films that look as if they had lain there for a while."""
    film = phantom_dataset(draw_phantom(1, 64, 64))
    written = time.time() - 2 * SETTLED_AFTER_SECONDS
    for _ in range(instances):
        path = store.path_of(store.keep_dataset(renewed(film)).relative_path)
        os.utime(path, (written, written))


def renewed(film: Dataset) -> Dataset:
    """The same film as the only one of another study."""
    film.StudyInstanceUID = generate_uid()
    film.SeriesInstanceUID = generate_uid()
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return film


if __name__ == "__main__":
    sys.exit(main())
