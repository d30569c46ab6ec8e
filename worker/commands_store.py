"""The part of the command line that looks after the files: reconcile."""

import socket
from typing import Annotated

import typer
from rich.console import Console

from dicom_io.storage import InstanceStore
from worker.command_start import open_database
from worker.intake import DatabaseIntake
from worker.named_files import SETTLED_AFTER_SECONDS
from worker.reconciling import Reconciler

application = typer.Typer()
output = Console(soft_wrap=True)


@application.command()
def reconcile(
    check: Annotated[bool, typer.Option("--check", help="Only look, change nothing.")] = False,
    settled_after_seconds: Annotated[
        float, typer.Option(min=0, help="Leave younger files to the process that writes them.")
    ] = SETTLED_AFTER_SECONDS,
) -> None:
    """Compare the files on the disk with the database, both ways; the listener does so at start."""
    settings, database = open_database()
    store = InstanceStore(settings.store_directory, settings.low_water_mark_bytes)
    intake = DatabaseIntake(
        database,
        f"reconcile:{socket.gethostname()}",
        settings.quiet,
        settings.longest_wait,
        store=store,
    )
    found = Reconciler(
        database, store, intake, settled_after_seconds=settled_after_seconds, repair=not check
    ).reconcile()
    done = ("to be entered", "to be deleted") if check else ("entered", "deleted")
    for paths, what in (
        (found.entered, f"without a row, {done[0]}"),
        (found.results_deleted, f"a result without a row, {done[1]}"),
        (found.unreadable, "without a row, and no DICOM object"),
        (found.missing, "missing; restore it from a backup"),
        (found.changed, "of another length than its row says; restore it from a backup"),
    ):
        for path in paths:
            output.print(f"{path}: {what}", highlight=False)
    output.print(f"{found.files} files compared" + ("" if found.is_clean else ", see above"))
    if found.unreadable or found.missing or found.changed:
        raise typer.Exit(1)
