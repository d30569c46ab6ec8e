"""The node's command line: ``python -m worker COMMAND``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.errors import MultiMixError
from dicom_io.result_profile import PROFILE_NAMES, profile
from dicom_io.storage import InstanceStore
from worker.clock import utc_now
from worker.command_start import keep_to_oneself, open_database, start_part
from worker.commands_audit import application as audit_commands
from worker.commands_fetch import application as fetch_commands
from worker.commands_store import application as store_commands
from worker.commands_targets import application as target_commands
from worker.database import Database, database_problem
from worker.node import run_node
from worker.processes import run_embedded_broker, run_listener, run_sweeper
from worker.requeueing import failed_studies, requeue_study, study_key_of
from worker.settings import Settings
from worker.settings_loading import load_settings, load_settings_with_origins, shown_value
from worker.status import StatusQuery, print_status, read_status
from worker.studies import StudyState
from worker.tables import Study

application = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An AI node beside a PACS. Research use only. Not for diagnosis.",
)
application.add_typer(audit_commands)
application.add_typer(fetch_commands)
application.add_typer(store_commands)
application.add_typer(target_commands)
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
    with database.reading() as session:
        keys = failed_studies(session) if all_failed else []
        keys += [study_key_of(session, study_uid) for study_uid in studies or ()]
    refused = False
    for key in dict.fromkeys(keys):
        try:
            with database.writing() as session:
                state = requeue_study(session, key, utc_now())
                study_uid = session.get_one(Study, key).study_uid
        except MultiMixError as refusal:
            refused = True
            print(f"error: {refusal}", file=sys.stderr)  # noqa: T201
        else:
            output.print(f"study {study_uid} is {state.value}", highlight=False)
    if not keys:
        output.print("nothing to try again: name studies, or use --all-failed")
    if refused:
        raise typer.Exit(2)


@application.command()
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN", help="DICOM file, or folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the results.")],
    results: Annotated[
        str, typer.Option(help=f"Objects to make, of: {', '.join(PROFILE_NAMES)}.")
    ] = "seg,sc",
) -> None:
    """Read a folder of DICOM files without network, broker or database; OUT is yours alone.

    The status is 1 if a file failed; the next start tries it again.
    """
    from worker.batch import any_failed, print_summary, run_batch
    from worker.reading import load_model

    keep_to_oneself()
    kinds = profile([name.strip() for name in results.split(",")])
    settings = load_settings()
    predictor = load_model(settings.model_directory, settings.device)
    rows = run_batch(source, out, predictor, kinds, settings.decoding_limits)
    print_summary(rows, out, output)
    if any_failed(rows):
        raise typer.Exit(1)


@application.command()
def demo(
    studies: Annotated[Path | None, typer.Option(help="DICOM file or folder to send.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Table as JSON.")] = None,
) -> None:
    """Show the whole product on this machine: node, PACS, studies, results, table."""
    from worker.demo import demo as run_demo

    raise typer.Exit(run_demo(studies, json_file))


def main() -> None:
    """Run a command; what is wrong is told in one line, with status 2."""
    try:
        application()
    except (MultiMixError, SQLAlchemyError) as problem:
        words = problem if isinstance(problem, MultiMixError) else database_problem(problem)
        print(f"error: {words}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
