"""Train MultiMix from archive exports.

    python -m model.train --data EXPORT [--data EXPORT ...] --out RUN
    python -m model.train --data EXPORT --out RUN --preset paper --labels 100 --masks 10
    python -m model.train --data EXPORT --out RUN --resume          # goes on where RUN stopped
    torchrun --nproc-per-node 2 -m model.train --data EXPORT --out RUN      # on two processes

RUN holds ``config.json``, ``metrics.csv`` (one row a validation) and the same as TensorBoard
scalars, ``state/`` (everything needed to go on, bit for bit) and, from the first validation on,
``model/``: weights and card of the best state so far, which ``model.evaluate`` scores and a node
can serve. SIGTERM, Ctrl-C and ``--minutes`` end a run between two steps with its state saved.
"""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from dicom_io.errors import TrainingError
from model.allocator import keep_freed_memory
from model.checkpoint import CARD_FILE, read_card
from model.command_line import Device, chosen_device, problems_explained
from model.config import TrainingConfig
from model.dataset import load_exports
from model.distributed import (
    after_the_first,
    joined_ranks,
)
from model.presets import TABLE_MODELS, changed, configure
from model.run_folder import read_config, require_no_run
from model.run_state import read_progress
from model.training import train

FIRST_VERSION: Final = "0"


def main(
    data: Annotated[list[Path], typer.Option(help="Archive export; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    preset: Annotated[str | None, typer.Option(help="paper or best; best if left out.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"A model of the paper's table: {', '.join(TABLE_MODELS)}.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings, keys as in model/config.py.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting of model/config.py as key=value, e.g. patience=5."),
    ] = None,
    labels: Annotated[int | None, typer.Option(help="Labelled images; all if left out.")] = None,
    masks: Annotated[int | None, typer.Option(help="Masks; all if left out.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw; 0 if left out.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the model on its card; 0 if left out.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed exports.")] = None,
    device: Device = "auto",
    minutes: Annotated[float | None, typer.Option(help="Time limit of this start.", min=0)] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Model directory whose weights the run begins with.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from RUN/state.")] = False,
) -> None:
    """Train MultiMix from archive exports."""
    keep_freed_memory()
    is_first = os.environ.get("RANK", "0") == "0"
    console, messages = Console(quiet=not is_first), Console(stderr=True, quiet=not is_first)
    budgets = {"labels": labels, "masks": masks, "seed": seed}
    overrides = (
        *(set_ or ()),
        *(f"{name}={value}" for name, value in budgets.items() if value is not None),
    )
    with problems_explained(Console(stderr=True)):  # every process tells why it ends
        settings = (
            settings_to_resume(out, preset, model, config, overrides)
            if resume
            else configure(preset or "best", model=model, file=config, overrides=overrides)
        )
        # All that needs no film is looked at before the exports are read, which may take long.
        known_version = version_to_resume(out) if resume else FIRST_VERSION
        if not resume:
            require_no_run(out)
        if start_from is not None:
            read_card(start_from)
        console.print(settings.model_dump())
        with joined_ranks(chosen_device(device)) as ranks:
            table = after_the_first(partial(load_exports, data, cache, console=messages), ranks)
            train(
                table,
                settings,
                out,
                version=version or known_version,
                resume=resume,
                start_from=start_from,
                device=chosen_device(device),
                minutes=minutes,
                console=console,
                ranks=ranks,
            )


def settings_to_resume(
    out: Path,
    preset: str | None,
    model: str | None,
    file: Path | None,
    overrides: tuple[str, ...],
) -> TrainingConfig:
    """The stored configuration; settings given again must be the same, those left out are.

    Raises:
        TrainingError: there is no run in ``out``, or a given setting differs from the run's.
    """
    stored = read_config(out)
    began_from = stored if preset is None else configure(preset)
    given = changed(began_from, model=model, file=file, overrides=overrides)
    differing = [
        name
        for name in TrainingConfig.model_fields
        if getattr(given, name) != getattr(stored, name)
    ]
    if differing:
        raise TrainingError(
            f"a resumed run keeps its configuration, but {', '.join(differing)} would change; "
            "leave the settings out, or start another run"
        )
    return stored


def version_to_resume(out: Path) -> str:
    """The version that a run was started with; an earlier release kept it on its model's card only.

    Raises:
        TrainingError: there is no state, or it is damaged.
        CheckpointError: the card is damaged.
    """
    folder = out / "model"
    if version := read_progress(out / "state").version:
        return version
    return read_card(folder).version if (folder / CARD_FILE).exists() else FIRST_VERSION


if __name__ == "__main__":
    typer.run(main)
