"""The part of the command line that answers for what the node did: audit."""

import json
from typing import Annotated

import typer
from rich.console import Console

from worker.audit import latest_entries, study_life
from worker.audit_chain import ChainReport, verify_chain
from worker.command_start import open_database

application = typer.Typer()
output = Console(soft_wrap=True)


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
