"""What the sweeper does beside its own work, as the settings ask for it."""

import os
import time
from pathlib import Path

from dicom_io.storage import InstanceStore
from worker.database import Database
from worker.record_keeping import record_keeping
from worker.settings import Settings

_DAY = 86400.0


def do_all_once(settings: Settings, database: Database, store: InstanceStore) -> None:
    for work in record_keeping(settings, database, store):
        work.do_batch()


def test_refused_objects_leave_the_quarantine_when_the_days_of_the_settings_are_over(
    database: Database, tmp_path: Path
) -> None:
    store = InstanceStore(tmp_path / "store")
    old, young = store.quarantine.put(b"old", "why"), store.quarantine.put(b"young", "why")
    assert old is not None
    long_ago = time.time() - 31 * _DAY
    os.utime(store.path_of(old), (long_ago, long_ago))

    do_all_once(Settings(home=tmp_path), database, store)
    assert set(store.quarantine.relative_paths()) == {old, young}, "nothing says how long"
    do_all_once(Settings(home=tmp_path, keep_days=30), database, store)
    assert list(store.quarantine.relative_paths()) == [young]
