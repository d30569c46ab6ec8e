"""What of the exports could not be used, for a person: on the console, and beside a run.

::

    RUN/problems.csv    path, reason; readable by its owner alone, since paths may name patients
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from model.private_file import private

PROBLEMS_NAME: Final = "problems.csv"


def tell_problems(problems: Sequence[tuple[str, str]], console: Console) -> None:
    """A line for each path with the reason."""
    for path, reason in problems:
        console.print(f"left out {path}: {reason}", soft_wrap=True, highlight=False, markup=False)


def write_problems(out: Path, problems: Sequence[tuple[str, str]]) -> None:
    """Keep them with a run, in the place of those of its last start."""
    unfinished = out / f"{PROBLEMS_NAME}.part"
    unfinished.unlink(missing_ok=True)  # a file that is there would keep its mode
    with open(unfinished, "w", newline="", encoding="utf-8", opener=private) as file:
        csv.writer(file).writerows((("path", "reason"), *problems))
    unfinished.replace(out / PROBLEMS_NAME)
