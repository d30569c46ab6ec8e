"""The result of one run of a reproduction on disk, beside the run: ``figures.json``."""

import json
from pathlib import Path
from typing import Final

from dicom_io.errors import TrainingError
from model.config import TrainingConfig, checked_config
from model.reproduction_results import Result
from model.table_grid import Cell

FIGURES_FILE: Final = "figures.json"


def read_result(folder: Path, cell: Cell, config: TrainingConfig) -> Result | None:
    """The result of an earlier start, or None where there is none.

    Raises:
        TrainingError: the folder holds a run with other settings.
    """
    try:
        found = json.loads((folder / FIGURES_FILE).read_text())
        stored = checked_config(found["config"])
        result = Result(
            cell,
            config,
            found["seconds"],
            found["steps"],
            found["figures"],
            found.get("labelled"),
            found.get("masked"),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as cause:
        raise TrainingError(f"{folder / FIGURES_FILE} is damaged; delete {folder}") from cause
    require_same_settings(folder, stored, config)
    return result


def require_same_settings(folder: Path, stored: TrainingConfig, config: TrainingConfig) -> None:
    """Compared as settings: one that did not exist when they were stored has its default.

    Raises:
        TrainingError: they differ.
    """
    if stored != config:
        raise TrainingError(
            f"{folder} was trained with other settings; choose another --out, or delete it"
        )


def write_result(folder: Path, result: Result) -> None:
    """Store a result in one step."""
    written = {
        "config": result.config.model_dump(mode="json"),
        "seconds": result.seconds,
        "steps": result.steps,
        "labelled": result.labelled,
        "masked": result.masked,
        "figures": result.figures,
    }
    unfinished = folder / "figures.part"
    unfinished.write_text(json.dumps(written, indent=2) + "\n")
    unfinished.replace(folder / FIGURES_FILE)
