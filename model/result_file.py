"""The result of one run of a reproduction on disk, beside the run: ``figures.json``."""

import json
from dataclasses import fields
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
        TrainingError: it is damaged or lacks what it was learnt from, or is that of a run with
            other settings.
    """
    path = folder / FIGURES_FILE
    try:
        found = json.loads(path.read_text())
        stored = checked_config(found.pop("config"))
        result = Result(cell, config, **found)
        if not result.learnt_sha256:
            raise KeyError("learnt_sha256")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise TrainingError(
            f"{path} is damaged, or of an earlier version; delete it, and the same command scores "
            "its run again"
        ) from cause
    require_same_settings(folder, stored, config)
    return result


def require_same_settings(folder: Path, stored: TrainingConfig, config: TrainingConfig) -> None:
    """Compared as settings: one that did not exist when they were stored has its default.

    Raises:
        TrainingError: they differ; the message names them.
    """
    differing = [
        f"{name} {getattr(stored, name)}, now {getattr(config, name)}"
        for name in TrainingConfig.model_fields
        if getattr(stored, name) != getattr(config, name)
    ]
    if differing:
        raise TrainingError(
            f"{folder} was trained with other settings ({'; '.join(differing)}); choose another "
            "--out, or delete it"
        )


def require_same_data(folder: Path, result: Result, learnt_sha256: str) -> None:
    """Refuse to pass off a result as that of other data.

    Args:
        folder: of the run.
        result: of an earlier start.
        learnt_sha256: of what would be learnt from now.

    Raises:
        TrainingError: it differs.
    """
    if result.learnt_sha256 != learnt_sha256:
        raise TrainingError(
            f"{folder} learnt from other images, masks or labels, or held out others, than the "
            "exports of --data hold now; choose another --out, or delete it"
        )


def write_result(folder: Path, result: Result) -> None:
    """Store a result in one step."""
    kept = {field.name: getattr(result, field.name) for field in fields(result)}
    del kept["cell"]  # the folder's name
    kept["config"] = result.config.model_dump(mode="json")
    unfinished = folder / "figures.part"
    unfinished.write_text(json.dumps(kept, indent=2) + "\n")
    unfinished.replace(folder / FIGURES_FILE)
