"""What the sweeper does for the records beside its own work: the log's chain, and retention."""

from typing import Final

from dicom_io.storage import InstanceStore
from worker.audit_chain import chain_new_entries
from worker.clock import utc_now
from worker.database import Database
from worker.periodic import PeriodicWork
from worker.removal import delete_noted_files
from worker.retention import RetentionRules, remove_expired
from worker.settings import Settings

_ENTRIES_AT_A_TIME: Final = 500
_FILES_AT_A_TIME: Final = 100
_CHAIN_SECONDS: Final = 0.5
_RETENTION_SECONDS: Final = 30.0


def record_keeping(
    settings: Settings, database: Database, store: InstanceStore
) -> list[PeriodicWork]:
    """The work that the settings ask for.

    Args:
        settings: of the node.
        database: with the current schema.
        store: where originals and results lie.
    """
    rules = RetentionRules(settings.keep_for, settings.keep_bytes)

    def chain() -> bool:
        return chain_new_entries(database, _ENTRIES_AT_A_TIME) == _ENTRIES_AT_A_TIME

    def remove() -> bool:
        now = utc_now()
        removed = remove_expired(database, rules, now)
        # Also what a purge left that was ended in the middle of its work.
        deleted = delete_noted_files(database, store, now, _FILES_AT_A_TIME)
        return removed == rules.studies_at_a_time or deleted == _FILES_AT_A_TIME

    return [
        PeriodicWork("the chain of the event log", _CHAIN_SECONDS, chain),
        PeriodicWork("retention", _RETENTION_SECONDS, remove),
    ]
