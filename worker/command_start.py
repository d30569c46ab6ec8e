"""What a command of the node's command line does before anything else."""

import os
import threading

from worker.database import Database
from worker.logs import configure_logging
from worker.processes import stop_on_signals
from worker.settings import Settings
from worker.settings_loading import load_settings


def start_part(name: str) -> tuple[Settings, threading.Event]:
    """Start a part that runs until it is told to stop.

    Args:
        name: of the part, as the log calls it.

    Returns:
        The settings, and an event that SIGTERM and SIGINT set.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    stop = stop_on_signals()
    os.umask(0o077)
    settings = load_settings()
    settings.prepare_home()
    configure_logging(settings, name)
    return settings, stop


def open_database() -> tuple[Settings, Database]:
    """Open the database for a command that asks or changes something and ends.

    Raises:
        SettingsError: a setting is missing or wrong, or the database has another schema.
    """
    settings = load_settings()
    settings.prepare_home()
    database = Database(settings.resolved_database_url)
    database.require_current_schema()
    return settings, database
