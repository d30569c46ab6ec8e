"""What a command of the node's command line does before anything else."""

import os
import threading

from worker.database import Database
from worker.logs import configure_logging, silence_what_may_quote_patients
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
    keep_to_oneself()
    settings = load_settings()
    settings.prepare_home()
    configure_logging(settings, name)
    return settings, stop


def open_database() -> tuple[Settings, Database]:
    """Open the database for a command that asks or changes something and ends.

    Raises:
        SettingsError: a setting is missing or wrong, or the database has another schema.
    """
    keep_to_oneself()
    settings = load_settings()
    settings.prepare_home()
    database = Database(settings.resolved_database_url)
    database.require_current_schema()
    return settings, database


def keep_to_oneself() -> None:
    """Have everything that is written readable by its owner alone, and no library quote a dataset.

    Results carry the patient's name, and the first command in a home makes the database.
    """
    os.umask(0o077)
    silence_what_may_quote_patients()
