"""The part of the command line that answers for what the node did and keeps: audit, purge."""

import json
import time
from typing import Annotated, Final

import typer
from rich.console import Console

from dicom_io.errors import IllegalTransition
from dicom_io.storage import InstanceStore
from worker.audit import latest_entries, study_life
from worker.audit_chain import ChainReport, verify_chain
from worker.clock import utc_now
from worker.command_start import open_database
from worker.purging import purge_study
from worker.removal import operator_name

application = typer.Typer()
output = Console(soft_wrap=True)
_PAUSE_SECONDS: Final = 0.5


@application.command()
def audit(
    study: Annotated[str | None, typer.Argument(help="Study Instance UID.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Without a study: most entries.")] = 100,
    verify: Annotated[bool, typer.Option("--verify", help="Check the whole log.")] = False,
    noted_head: Annotated[
        str | None, typer.Option(help="With --verify: a hash that must be in the log.")
    ] = None,
) -> None:
    """Tell a study's whole life, or what happened last; or check that nobody changed the log."""
    if noted_head is not None and not verify:
        raise typer.BadParameter("--noted-head needs --verify")
    if verify and study is not None:
        raise typer.BadParameter("--verify checks the whole log, not one study's")
    _, database = open_database()
    with database.reading() as session:
        if verify:
            _tell_report(verify_chain(session, noted_head), as_json)
            return
        entries = latest_entries(session, limit) if study is None else study_life(session, study)
    if as_json:
        print(json.dumps([entry.as_json() for entry in entries], indent=2))  # noqa: T201
        return
    for entry in entries:
        output.print(entry.as_line(), highlight=False, markup=False)


@application.command()
def purge(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait_seconds: Annotated[
        float, typer.Option(min=0, help="Wait so long for one that is being read or sent.")
    ] = 60.0,
) -> None:
    """Erase a study: its originals, results and findings; the log of what was done stays."""
    settings, database = open_database()
    if not yes:
        typer.confirm(f"Erase all files of study {study}? This cannot be undone.", abort=True)
    store = InstanceStore(settings.store_directory)
    end = time.monotonic() + wait_seconds
    while True:
        try:
            deleted = purge_study(database, store, study, operator_name(), utc_now)
        except IllegalTransition:
            if time.monotonic() >= end:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            break
    output.print(f"study {study} is erased: {deleted} files deleted")


def _tell_report(report: ChainReport, as_json: bool) -> None:
    """Print what a check found; status 1 says to programs that the log is not intact."""
    if as_json:
        since = report.waiting_since.isoformat() if report.waiting_since else None
        found = {
            "intact": report.intact,
            "entries": report.entries,
            "head": report.head,
            "waiting": report.waiting,
            "waiting_since": since,
            "broken": report.broken,
            "noted_head_found": report.noted_head_found,
        }
        print(json.dumps(found, indent=2))  # noqa: T201
    else:
        output.print(f"{report.entries} entries are intact; the last one's hash: {report.head}")
        if report.waiting:
            output.print(f"{report.waiting} entries wait to be chained; is the sweeper running?")
        if report.broken:
            output.print(f"[bold red]the log is broken: {report.broken}[/bold red]")
        if report.noted_head_found is False:
            output.print("[bold red]the noted hash is not in the log: it was rewritten[/bold red]")
    if not report.intact:
        raise typer.Exit(1)
