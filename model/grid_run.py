"""One run of a reproduction: taken over from an earlier start or trained, then scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    require_same_data,
    require_same_settings,
    write_result,
)
from model.run_end import is_finished
from model.run_folder import read_config
from model.run_state import TrainingState, read_progress
from model.scored_sets import ScoredSet
from model.split_file import pools_of_run
from model.splits import divide_as_configured
from model.table_grid import Cell
from model.training import train


@dataclass(frozen=True)
class GridRun:
    """One run of a grid, as it is asked for.

    Attributes:
        cell: its row of the table.
        config: its settings.
        folder: its folder.
        device: torch device that trains and scores.
    """

    cell: Cell
    config: TrainingConfig
    folder: Path
    device: str

    @property
    def name(self) -> str:
        """For messages: ``multimix-100-labels-10-masks, seed 1``."""
        return f"{self.cell.name}, seed {self.config.seed}"


def kept_or_trained(run: GridRun, learnt: ImageTable, console: Console) -> Result:
    """The result of an earlier start, or of a training now, which has no figures yet.

    Args:
        run: what is asked for.
        learnt: images to learn from.
        console: where progress goes.

    Raises:
        TrainingError: the folder holds a run with other settings or of other data, or the training
            failed, was stopped, or ended before it had a model.
    """
    pools = divide_as_configured(learnt.records, run.config)
    learnt_sha256 = hash_of_learnt(learnt, pools, run.config)
    kept = read_result(run.folder, run.cell, run.config)
    if kept is not None:
        require_same_data(run.folder, kept, learnt_sha256)
        return kept
    state = _trained(run, learnt, console)
    return Result(
        cell=run.cell,
        config=run.config,
        seconds=state.seconds,
        steps=state.step,
        figures={},
        labelled=len(pools.labelled),
        masked=len(pools.masked),
        held_out_labels=sum(pools.classes[row] >= 0 for row in pools.validation),
        learnt_sha256=learnt_sha256,
    )


def _trained(run: GridRun, learnt: ImageTable, console: Console) -> TrainingState:
    """Train a run to its end, from where it was stopped if it was.

    Raises:
        TrainingError: see ``kept_or_trained``.
    """
    folder, config = run.folder, run.config
    begun = read_progress(folder / "state") if (folder / "state").exists() else None
    if begun is not None:
        require_same_settings(folder, read_config(folder), config)
    if begun is not None and is_finished(config, begun):
        # It ended before it was scored: not a step more, but the same checks as for one.
        pools = pools_of_run(folder, learnt.records, config)
        learnt_rows(folder, learnt, pools, config, begun.training_data_sha256)
    else:
        train(
            learnt,
            config,
            folder,
            version="0",
            resume=begun is not None,
            device=run.device,
            console=console,
        )
    state = read_progress(folder / "state")
    if not is_finished(config, state):
        raise TrainingError(
            f"stopped at step {state.step} of {config.total_steps} of {run.name}; the same command "
            "goes on from there"
        )
    if state.step <= config.warm_up_steps:
        raise TrainingError(
            f"the time limit ended {run.name}, at step {state.step} of the {config.warm_up_steps} "
            "of its self-supervised warm-up, so there is no model to score; give more --minutes or "
            "a shorter warm-up, and another --out"
        )
    return state


def scored(run: GridRun, result: Result, sets: Sequence[ScoredSet]) -> Result:
    """A result with the figures of these sets; the run's model scores those that are not known.

    Raises:
        CheckpointError: the run's model is missing or damaged.
    """
    wanted = {one.domain: one.sha256 for one in sets}
    if result.scored == wanted:
        return result
    predictor = Predictor.load(run.folder / "model", run.device)
    figures = {
        one.domain: result.figures[one.domain]
        if result.scored.get(one.domain) == one.sha256
        else _scores(one.table, one.rows, predictor)
        for one in sets
    }
    result = replace(result, figures=figures, scored=wanted)
    write_result(run.folder, result)
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
