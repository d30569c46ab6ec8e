"""A training run on disk: configuration, figures, and the best model so far.

::

    RUN/config.json    every hyperparameter
    RUN/splits.csv     what each image was used for (``model.split_file``)
    RUN/problems.csv   what of the exports could not be used (``model.problems``)
    RUN/metrics.csv    one row a validation
    RUN/tensorboard/   the same figures as scalars
    RUN/state/         everything needed to go on (``model.run_state``)
    RUN/model/         weights and card of the best state so far (``model.checkpoint``)
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from torch.utils.tensorboard import SummaryWriter

from dicom_io.errors import TrainingError
from model.calibrate import fit_calibration
from model.checkpoint import ModelCard, write_model
from model.config import TrainingConfig, checked_config
from model.image_table import ImageTable
from model.mirroring import MirrorAveraged
from model.network import MultiMixNetwork
from model.splits import Pools

UNNAMED_SOURCE: Final = "unnamed"


def write_config(out: Path, config: TrainingConfig) -> None:
    """Store a new run's configuration.

    Raises:
        TrainingError: the folder holds a run already.
    """
    require_no_run(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.csv").unlink(missing_ok=True)  # of a start that never came to save its state
    (out / "config.json").write_text(config.model_dump_json(indent=2) + "\n")


def require_no_run(out: Path) -> None:
    """Refuse a folder for a new run that has another one in it.

    Raises:
        TrainingError: it has.
    """
    if (out / "state").exists():
        raise TrainingError(f"{out} holds a run already; --resume goes on with it")


def read_config(out: Path) -> TrainingConfig:
    """The configuration of a run; settings that it does not know yet have their defaults.

    Raises:
        TrainingError: there is none, or it is damaged.
    """
    path = out / "config.json"
    try:
        values = json.loads(path.read_text())
    except OSError as cause:
        raise TrainingError(f"there is no run in {out}: {path} cannot be read") from cause
    except ValueError as cause:
        raise TrainingError(f"{path} is damaged; start anew") from cause
    if not isinstance(values, dict):
        raise TrainingError(f"{path} is damaged; start anew")
    return checked_config(values)


@contextmanager
def scalars(out: Path, step: int) -> Iterator[SummaryWriter]:
    """A TensorBoard writer for a run; what an earlier start wrote after ``step`` is hidden."""
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
    try:
        yield writer
    finally:
        writer.close()


def record_validation(
    out: Path,
    writer: SummaryWriter,
    step: int,
    progress: dict[str, float],
    figures: dict[str, float],
) -> dict[str, float]:
    """Add one validation to ``metrics.csv`` and to the scalars.

    Args:
        out: the run's folder.
        writer: from ``scalars``.
        step: optimiser steps done.
        progress: seconds, image side, learning rate and mean loss terms since the last one.
        figures: what ``model.validation.validate`` found.

    Returns:
        The row as written.
    """
    row = {"step": step} | progress | figures
    append_row(out / "metrics.csv", row)
    for group, values in (("train", progress), ("held-out", figures)):
        for name, value in values.items():
            writer.add_scalar(f"{group}/{name}", value, step)
    writer.flush()
    return row


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a row to a CSV whose columns are the union over all rows; replaces it in one step."""
    written = {name: str(v) if isinstance(v, int) else f"{v:.6g}" for name, v in row.items()}
    _write_rows(path, [*_read_rows(path), written])


def drop_rows_after(path: Path, step: int) -> None:
    """Forget validations that the saved state does not know of, since they will come again.

    Raises:
        TrainingError: the file is damaged.
    """
    rows = _read_rows(path)
    try:
        kept = [row for row in rows if float(row["step"]) <= step]
    except (KeyError, TypeError, ValueError) as cause:
        raise _damaged_metrics(path) from cause
    if len(kept) < len(rows):
        _write_rows(path, kept)


def read_metrics(out: Path) -> list[dict[str, float]]:
    """Every validation of a run, oldest first; a figure that one lacks is left out of it.

    Raises:
        TrainingError: the file is damaged.
    """
    path = out / "metrics.csv"
    try:
        return [
            {name: float(value) for name, value in row.items() if value} for row in _read_rows(path)
        ]
    except (TypeError, ValueError) as cause:
        raise _damaged_metrics(path) from cause


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as cause:
        raise _damaged_metrics(path) from cause


def _damaged_metrics(path: Path) -> TrainingError:
    return TrainingError(
        f"{path} is damaged: it is no table of numbers by step; remove it, and the validations "
        "before this one are lost"
    )


def _write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(path)


def keep_model(
    out: Path,
    network: MultiMixNetwork,
    table: ImageTable,
    pools: Pools,
    card: ModelCard,
    figures: dict[str, float],
    side: int,
) -> ModelCard:
    """Calibrate on the held-out patients and write the model directory.

    Args:
        out: the run's folder.
        network: the one to keep.
        table: images and labels.
        pools: which rows are held out.
        card: what is known before training, from ``first_card``.
        figures: of the held-out patients.
        side: image side in pixels that the network learns at now, and is to be served at.
    """
    served = MirrorAveraged(network) if card.average_mirrored else network
    known = card.model_copy(
        update={
            "input_side": side,
            "calibration": fit_calibration(served, table, pools, side),
            "metrics": {
                "held-out patients": {name: round(value, 4) for name, value in figures.items()}
            },
        }
    )
    return write_model(out / "model", network, known)


def first_card(
    version: str, table: ImageTable, rows: Sequence[int], config: TrainingConfig
) -> ModelCard:
    """What a model's card says of its training, known before the first step.

    Args:
        version: of the model.
        table: images, masks and labels.
        rows: every row that the run learns from.
        config: every hyperparameter.
    """
    sources = Counter(table.records[row].source or UNNAMED_SOURCE for row in rows)
    return ModelCard(
        version=version,
        network={},
        input_side=config.stages[-1].side,
        training_data_sha256=table.content_hash(rows),
        training_data=dict(sorted(sources.items())),
        average_mirrored=config.average_mirrored,
        training_config=config.model_dump(mode="json"),
    )
