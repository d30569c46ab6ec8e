"""One run of a reproduction: taken over from an earlier start or trained, then scored."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.evaluate import evaluate_rows
from model.image_table import ImageTable
from model.learnt_data import hash_of_learnt, learnt_rows
from model.predictor import Predictor
from model.reproduction_results import Result
from model.result_file import (
    read_result,
    require_same_settings,
    require_same_training,
    write_result,
)
from model.run_folder import read_config
from model.run_state import TrainingState, read_progress
from model.scored_sets import ScoredSet
from model.split_file import pools_of_run
from model.splits import divide_as_configured
from model.table_grid import Cell
from model.training import is_finished, train

# The state's seconds are taken a moment before the time limit is asked for.
CLOCK_SECONDS: Final = 1.0


def kept_or_trained(
    cell: Cell,
    config: TrainingConfig,
    folder: Path,
    learnt: ImageTable,
    minutes: float | None,
    device: str,
    console: Console,
) -> Result:
    """The result of an earlier start, or of a training now, which has no figures yet.

    Args:
        cell: the run's row of the table.
        config: its settings.
        folder: its folder.
        learnt: images to learn from.
        minutes: its time limit, of all starts together; None for none.
        device: torch device.
        console: where progress goes.

    Raises:
        TrainingError: the folder holds a run with other settings, of other data or of another time
            limit, or the training failed, was stopped, or ended before it had a model.
    """
    pools = divide_as_configured(learnt.records, config)
    learnt_sha256 = hash_of_learnt(learnt, pools, config)
    kept = read_result(folder, cell, config)
    if kept is not None:
        require_same_training(folder, kept, learnt_sha256, minutes)
        return kept
    state = _trained(cell, config, folder, learnt, minutes, device, console)
    return Result(
        cell=cell,
        config=config,
        seconds=state.seconds,
        steps=state.step,
        figures={},
        labelled=len(pools.labelled),
        masked=len(pools.masked),
        held_out_labels=sum(pools.classes[row] >= 0 for row in pools.validation),
        learnt_sha256=learnt_sha256,
        minutes=minutes,
    )


def _trained(
    cell: Cell,
    config: TrainingConfig,
    folder: Path,
    learnt: ImageTable,
    minutes: float | None,
    device: str,
    console: Console,
) -> TrainingState:
    """Train a run to its end, from where it was stopped if it was.

    Raises:
        TrainingError: see ``kept_or_trained``.
    """
    begun = read_progress(folder / "state") if (folder / "state").exists() else None
    if begun is not None:
        require_same_settings(folder, read_config(folder), config)
    if begun is not None and not is_unfinished(config, begun, minutes):
        # It ended before it was scored: not a step more, but the same checks as for one.
        pools = pools_of_run(folder, learnt.records, config)
        learnt_rows(folder, learnt, pools, config, begun.training_data_sha256)
    else:
        spent = 0.0 if begun is None else begun.seconds / 60
        train(
            learnt,
            config,
            folder,
            version="0",
            resume=begun is not None,
            device=device,
            minutes=None if minutes is None else max(0.0, minutes - spent),
            console=console,
        )
    state = read_progress(folder / "state")
    if is_unfinished(config, state, minutes):
        raise TrainingError(
            f"stopped at step {state.step} of {config.total_steps} of {cell.name}, seed "
            f"{config.seed}; the same command goes on from there"
        )
    if state.step <= config.warm_up_steps:
        raise TrainingError(
            f"the time limit ended {cell.name}, seed {config.seed}, at step {state.step} of the "
            f"{config.warm_up_steps} of its self-supervised warm-up, so there is no model to score;"
            " the same command with more --minutes goes on from there, or give a shorter warm-up "
            "and another --out"
        )
    return state


def is_unfinished(config: TrainingConfig, state: TrainingState, minutes: float | None) -> bool:
    """Whether a run was stopped from outside: with steps, time and patience left."""
    has_time = minutes is None or state.seconds < minutes * 60 - CLOCK_SECONDS
    return has_time and not is_finished(config, state)


def scored(result: Result, sets: Sequence[ScoredSet], folder: Path, device: str) -> Result:
    """A result with the figures of these sets; the run's model scores those that are not known.

    Raises:
        CheckpointError: the run's model is missing or damaged.
    """
    wanted = {one.domain: one.sha256 for one in sets}
    if result.scored == wanted:
        return result
    predictor = Predictor.load(folder / "model", device)
    figures = {
        one.domain: result.figures[one.domain]
        if result.scored.get(one.domain) == one.sha256
        else _scores(one.table, one.rows, predictor)
        for one in sets
    }
    result = replace(result, figures=figures, scored=wanted)
    write_result(folder, result)
    return result


def _scores(table: ImageTable, rows: Sequence[int], predictor: Predictor) -> dict[str, Any]:
    """All figures that are numbers, and AUROC within each view."""
    report, _ = evaluate_rows(table, rows, predictor, full_size=False)
    figures = {name: value for name, value in report.items() if isinstance(value, int | float)}
    figures |= {
        f"auroc_{view}": group["auroc"]
        for view, group in report["by_view"].items()
        if group.get("auroc") is not None
    }
    return figures
