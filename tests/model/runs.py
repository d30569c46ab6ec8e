"""Short training runs for tests: small films, few steps."""

import csv
import hashlib
import io
import json
import os
import signal
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file
from typer import Typer
from typer.testing import CliRunner, Result

from model.config import TrainingConfig
from model.image_table import ImageTable
from model.presets import configure
from model.train import main
from model.training import train

SHORT = (
    'stages=[{"side":32,"steps":6}]',
    "validate_every=2",
    "class_batch=2",
    "mask_batch=2",
    "unlabelled_batch=2",
    "validation_share=0.3",
)


def short(preset: str = "best", *overrides: str, model: str | None = None) -> TrainingConfig:
    """A preset with few, small steps; later overrides win."""
    return configure(preset, model=model, overrides=(*SHORT, *overrides))


def run(
    table: ImageTable,
    config: TrainingConfig,
    out: Path,
    *,
    printed: io.StringIO | None = None,
    **options: object,
) -> str:
    """Train quietly and give what was printed."""
    printed = printed or io.StringIO()
    console = Console(file=printed, width=500)
    train(table, config, out, version="1", console=console, **options)  # type: ignore[arg-type]
    return printed.getvalue()


class SignalAt(io.StringIO):
    """Sends this process a real SIGTERM when a text is printed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def write(self, printed: str) -> int:
        if self._text in printed:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(printed)


def state_hash(out: Path) -> str:
    """Hash of every tensor of a run's saved state: both networks and the optimizer."""
    (path,) = (out / "state").glob("step-*.safetensors")
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()


def rows_of(out: Path) -> list[dict[str, str]]:
    """Every validation of a run, but for the time that it took."""
    with (out / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def steps_done(out: Path) -> int:
    """Steps of a run's saved state."""
    return json.loads((out / "state" / "state.json").read_text())["step"]


def command_line(*arguments: object) -> Result:
    """What ``python -m model.train`` with these arguments comes to, in this process."""
    application = Typer()
    application.command()(main)
    return CliRunner().invoke(application, [str(argument) for argument in arguments])
