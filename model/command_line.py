"""What the trainer's commands share: a problem ends in a sentence, and a device that is there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
import typer
from rich.console import Console

from dicom_io.errors import MultiMixError, TrainingError

Device = Annotated[
    str, typer.Option(help="auto (CUDA where there is one), cpu, cuda, or one of several: cuda:1.")
]


@contextmanager
def problems_explained(console: Console) -> Iterator[None]:
    """End a command with a message and status 1, not with a traceback, where we know what is wrong.

    Files and folders that cannot be read or written are among it: they are its user's to mend.

    Args:
        console: where the message goes.
    """
    try:
        yield
    except MultiMixError as problem:
        _say(console, str(problem))
        raise typer.Exit(1) from problem
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        _say(console, f"{where}{problem.strerror or problem}")
        raise typer.Exit(1) from problem


def _say(console: Console, text: str) -> None:
    # Without markup: a path may hold square brackets.
    console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def chosen_device(name: str) -> str:
    """The torch device of a ``--device`` option.

    Args:
        name: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or one of several as ``cuda:1``.

    Raises:
        TrainingError: it is another word, or a device that this machine has not.
    """
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if has_cuda else "cpu"
    if name == "cpu":
        return name
    found = re.fullmatch(r"cuda(?::([0-9]+))?", name)
    if found is None:
        raise TrainingError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if not has_cuda:
        raise TrainingError("no CUDA device is found here; choose auto or cpu")
    if found[1] and int(found[1]) >= torch.cuda.device_count():
        raise TrainingError(f"there are {torch.cuda.device_count()} CUDA devices, not {name}")
    return name
