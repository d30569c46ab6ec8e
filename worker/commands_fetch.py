"""The part of the command line that works through an archive: fetch."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dicom_io.errors import MultiMixError
from worker.command_start import open_database
from worker.fetching import Fetched, Fetcher, Way, source_named, studies_of_list, way_to

application = typer.Typer()
output = Console(soft_wrap=True)


@application.command()
def fetch(
    studies: Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs.")] = None,
    peer: Annotated[
        str, typer.Option("--from", help="Name of a target, AE_TITLE@HOST:PORT, or a URL.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option(help="List of Study Instance UIDs, one a line.")
    ] = None,
    by: Annotated[
        Way | None, typer.Option(help="get for a remote AE, wado for a URL; move if told.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also studies that are here, or were deleted here.")
    ] = False,
) -> None:
    """Fetch studies from a peer, to be read like those that were sent.

    A list may be given again after an interruption: only studies of which something is missing are
    fetched. What was deleted here is told, and not fetched.
    """
    named = list(dict.fromkeys([*(studies or ()), *(_listed(file) if file else ())]))
    if not named or not peer:
        raise MultiMixError("say which studies, as UIDs or by --file LIST, and --from which peer")
    settings, database = open_database()
    source = source_named(settings, peer)
    fetcher = Fetcher(settings, database, source, way_to(source, by))
    fetched: list[Fetched] = []
    try:
        for study_uid in track(named, description="fetching", disable=len(named) == 1):
            fetched.append(fetcher.fetch(study_uid, again=again))
    finally:
        # Also where the peer is lost half-way: what came before is here.
        _print(fetched)
    if not all(one.complete for one in fetched):
        raise typer.Exit(1)


def _listed(file: Path) -> list[str]:
    try:
        return studies_of_list(file.read_text())
    except (OSError, UnicodeDecodeError) as cause:
        raise MultiMixError(f"{file} cannot be read as a list of studies") from cause


def _print(fetched: list[Fetched]) -> None:
    table = Table("study", "came", "failed", "note", box=None)
    for one in fetched:
        table.add_row(one.study_uid, str(one.taken), str(one.failed), one.note)
    output.print(table, highlight=False)
    complete = sum(one.complete for one in fetched)
    output.print(f"{complete} of {len(fetched)} studies are here; `status` shows their results")
