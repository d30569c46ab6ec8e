"""What the sweeper does for the records beside its own work: the log's chain."""

from typing import Final

from worker.audit_chain import chain_new_entries
from worker.database import Database
from worker.periodic import PeriodicWork
from worker.settings import Settings

_ENTRIES_AT_A_TIME: Final = 500


def record_keeping(settings: Settings, database: Database) -> list[PeriodicWork]:
    """The work that the settings ask for.

    Args:
        settings: of the node.
        database: with the current schema.
    """

    def chain() -> bool:
        return chain_new_entries(database, _ENTRIES_AT_A_TIME) == _ENTRIES_AT_A_TIME

    return [PeriodicWork("the chain of the event log", 0.5, chain)]
