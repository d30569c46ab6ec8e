"""The part of the command line that tells of the targets: peers."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dicom_io.dicomweb import require_reachable
from dicom_io.errors import MultiMixError
from dicom_io.sender import echo
from worker.command_start import open_database
from worker.connections import remote_at, web_service_at
from worker.settings import Settings
from worker.target_listing import ListedTarget, disagreements, list_targets

application = typer.Typer()
output = Console(soft_wrap=True)
_ANSWERS = "answers"


@application.command()
def peers(
    with_echo: Annotated[bool, typer.Option("--echo", help="Ask each if it is there.")] = False,
) -> None:
    """List the targets, how sending to them goes, and what waits for them."""
    settings, database = open_database()
    with database.reading() as session:
        listed = list_targets(session, settings.targets)
    named = {target.name for target in settings.targets}
    answers = {
        target.name: _answer(target, settings) if target.served or target.name in named else ""
        for target in (listed if with_echo else ())
    }
    output.print(_as_table(listed, answers), highlight=False)
    for line in disagreements(listed, settings.targets):
        output.print(line, markup=False, highlight=False)
    if any(answer not in ("", _ANSWERS) for answer in answers.values()):
        raise typer.Exit(1)


def _as_table(listed: list[ListedTarget], answers: dict[str, str]) -> Table:
    table = Table(
        *("name", "AE title", "address", "gets", "served", "waiting", "since"),
        *("last failure", "echo"),
        box=None,
    )
    for target in listed:
        since = target.waiting_since
        cells = (
            target.name,
            target.ae_title,
            target.address,
            target.results,
            "yes" if target.served else "no",
            str(target.waiting),
            "" if since is None else since.isoformat(" ", "seconds"),
            target.last_failure or "",
            answers.get(target.name, ""),
        )
        table.add_row(*map(escape, cells))
    return table


def _answer(target: ListedTarget, settings: Settings) -> str:
    try:
        if target.url is not None:
            require_reachable(web_service_at(settings, target.url))
        else:
            echo(remote_at(settings, target.ae_title, target.host, target.port))
    except MultiMixError as failure:
        return str(failure)
    return _ANSWERS
