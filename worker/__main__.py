"""The node's command line: ``python -m worker COMMAND``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from dicom_io.dicomweb import require_reachable
from dicom_io.errors import MultiMixError
from dicom_io.result_profile import PROFILE_NAMES, profile
from dicom_io.sender import echo
from dicom_io.storage import InstanceStore
from worker.clock import utc_now
from worker.command_start import keep_to_oneself, open_database, start_part
from worker.commands_audit import application as audit_commands
from worker.commands_fetch import application as fetch_commands
from worker.commands_store import application as store_commands
from worker.connections import remote_at, web_service_at
from worker.database import Database
from worker.node import run_node
from worker.peers import address_of, enter_targets
from worker.processes import run_embedded_broker, run_listener, run_sweeper
from worker.requeueing import failed_studies, requeue_study
from worker.settings import Settings
from worker.settings_loading import load_settings, load_settings_with_origins, shown_value
from worker.status import StatusQuery, print_status, read_status
from worker.studies import StudyState
from worker.tables import Peer, Study

application = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An AI node beside a PACS. Research use only. Not for diagnosis.",
)
application.add_typer(audit_commands)
application.add_typer(fetch_commands)
application.add_typer(store_commands)
output = Console(soft_wrap=True)


@application.command()
def up() -> None:
    """Run the whole node in the foreground until SIGTERM or Ctrl-C."""
    settings, stop = start_part("node")
    run_node(settings, stop, lambda line: print(line, flush=True))  # noqa: T201


@application.command()
def listen() -> None:
    """Run the listener: C-STORE and C-ECHO."""
    run_listener(*start_part("listener"))


@application.command()
def sweep() -> None:
    """Run the periodic work: quiet studies, lost leases, wake-ups."""
    run_sweeper(*start_part("sweeper"))


@application.command()
def broker() -> None:
    """Run the embedded broker alone."""
    settings, _ = start_part("broker")
    run_embedded_broker(settings)


@application.command()
def migrate() -> None:
    """Create or update the database's tables."""
    settings, _ = start_part("migrate")
    database = Database(settings.resolved_database_url)
    database.wait_until_reachable()
    database.upgrade_to_head()
    output.print("the database is up to date")


@application.command(name="settings")
def list_settings() -> None:
    """List every setting with its value and origin; passwords are masked."""
    loaded = load_settings_with_origins()
    table = Table("setting", "value", "origin", box=None)
    for name in Settings.model_fields:
        table.add_row(name, shown_value(loaded.settings, name), loaded.origins[name])
    output.print(table, highlight=False)


@application.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    state: Annotated[list[StudyState] | None, typer.Option(help="Only studies like this.")] = None,
    study: Annotated[str | None, typer.Option(help="Only this Study Instance UID.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most studies, the latest first.")] = 100,
) -> None:
    """Show what became of each study."""
    settings, database = open_database()
    query = StatusQuery(tuple(state or ()), study, limit)
    with database.reading() as session:
        found = read_status(
            session, InstanceStore(settings.store_directory, settings.low_water_mark_bytes), query
        )
    if as_json:
        print(json.dumps(found, indent=2))  # noqa: T201
    else:
        print_status(found, output)


@application.command()
def requeue(
    studies: Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs.")] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="Every failed study.")] = False,
) -> None:
    """Try studies again that have failed, were rejected, or are done."""
    _, database = open_database()
    with database.writing() as session:
        keys = failed_studies(session) if all_failed else []
        for study_uid in studies or ():
            key = session.scalar(select(Study.study_key).where(Study.study_uid == study_uid))
            if key is None:
                raise MultiMixError(f"no study {study_uid} is known; `status` lists all")
            keys.append(key)
        for key in keys:
            state = requeue_study(session, key, utc_now())
            output.print(f"study {session.get_one(Study, key).study_uid} is {state.value}")
    if not keys:
        output.print("nothing to try again: name studies, or use --all-failed")


@application.command()
def peers(
    with_echo: Annotated[bool, typer.Option("--echo", help="Ask each if it is there.")] = False,
) -> None:
    """List the targets and how sending to them goes."""
    settings, database = open_database()
    with database.writing() as session:
        enter_targets(session, settings.targets)
        rows = list(session.scalars(select(Peer).order_by(Peer.name)))
    table = Table(
        "name", "AE title", "address", "gets", "configured", "last failure", "echo", box=None
    )
    silent = False
    for peer in rows:
        answer = ""
        if with_echo and peer.configured:
            answer = _echo(peer, settings)
            silent = silent or answer != "answers"
        table.add_row(
            peer.name,
            peer.ae_title,
            address_of(peer),
            peer.results,
            "yes" if peer.configured else "no",
            peer.last_failure or "",
            answer,
        )
    output.print(table, highlight=False)
    if silent:
        raise typer.Exit(1)


@application.command()
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN", help="DICOM file, or folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the results.")],
    results: Annotated[
        str, typer.Option(help=f"Objects to make, of: {', '.join(PROFILE_NAMES)}.")
    ] = "seg,sc",
) -> None:
    """Read a folder of DICOM files without network, broker or database; OUT is yours alone."""
    from worker.batch import print_summary, run_batch
    from worker.reading import load_model

    keep_to_oneself()
    kinds = profile([name.strip() for name in results.split(",")])
    settings = load_settings()
    predictor = load_model(settings.model_directory, settings.device)
    rows = run_batch(source, out, predictor, kinds, settings.decoding_limits)
    print_summary(rows, out, output)


@application.command()
def demo(
    studies: Annotated[Path | None, typer.Option(help="DICOM file or folder to send.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Table as JSON.")] = None,
) -> None:
    """Show the whole product on this machine: node, PACS, studies, results, table."""
    from worker.demo import demo as run_demo

    raise typer.Exit(run_demo(studies, json_file))


def _echo(peer: Peer, settings: Settings) -> str:
    try:
        if peer.url is not None:
            require_reachable(web_service_at(settings, peer.url))
        else:
            echo(remote_at(settings, peer.ae_title, peer.host, peer.port))
    except MultiMixError as failure:
        return str(failure)
    return "answers"


def main() -> None:
    """Run a command; what is wrong is told in one line, with status 2."""
    try:
        application()
    except MultiMixError as problem:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
