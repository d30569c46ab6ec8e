"""Train the paper's table on other data: a grid of models, budgets and seeds.

    python -m model.reproduce --data EXPORT --cross EXPORT --out GRID
    python -m model.reproduce --data EXPORT --cross EXPORT --out GRID --quick
    python -m model.reproduce --data EXPORT --out GRID --model multimix --model umtl-ssl \
        --labels 100 --masks 10 --preset best --minutes 30     # at equal wall time

``--data`` is learnt from and scored in-domain, on its ``val`` split; ``--cross`` is never learnt
from and scored as a whole. GRID holds a run for each row of the table and seed, and after each of
them ``table.csv`` and ``table.md``: means and spreads beside the paper's own figures, and what may
be concluded from them. Stopped at any moment, the same command goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dicom_io.errors import TrainingError
from model.allocator import keep_freed_memory
from model.command_line import Device, chosen_device, problems_explained
from model.config import TrainingConfig
from model.dataset import load_exports
from model.evaluate import evaluate_rows
from model.image_table import ImageTable
from model.predictor import Predictor
from model.presets import TABLE_MODELS, configure
from model.reproduction_report import write_tables
from model.reproduction_results import Grid, Result
from model.result_file import read_result, require_same_settings, write_result
from model.run_folder import read_config
from model.run_state import TrainingState, read_progress
from model.splits import divide_as_configured
from model.table_grid import Cell, Domain, parse_budget, table_cells
from model.training import ran_out_of_patience, train

QUICK_SETTINGS = (
    'stages=[{"side":128,"steps":40}]',
    "class_batch=6",
    "mask_batch=6",
    "unlabelled_batch=6",
    "learning_rate=1e-3",  # the paper's 1e-4 learns nothing in so few steps
    "validate_every=40",
)
QUICK_SEEDS = 2
QUICK_FILMS = 200
# The state's seconds are taken a moment before the time limit is asked for.
CLOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """What is trained and how it is scored.

    Attributes:
        cells: rows of the table.
        seeds: each row is trained once with each.
        configs: the settings of each row, but for the seed.
        minutes: time limit of each run; None for none.
        most_films: films scored of each set; None for all.
        device: torch device.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    configs: dict[Cell, TrainingConfig]
    minutes: float | None
    most_films: int | None
    device: str


def main(
    data: Annotated[list[Path], typer.Option(help="Archive export to learn from.")],
    out: Annotated[Path, typer.Option(help="Folder of the grid.")],
    cross: Annotated[
        list[Path] | None, typer.Option(help="Export that is scored and never learnt from.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help=f"Row of the table, of {', '.join(TABLE_MODELS)}; all if left out."),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(help="Budget; 100, 1000 and all if left out.")
    ] = None,
    masks: Annotated[
        list[str] | None, typer.Option(help="Budget; 10, 50 and all if left out.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each row; 3 if left out, 2 with --quick.", min=1)
    ] = None,
    preset: Annotated[str, typer.Option(help="paper or best.")] = "paper",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting of model/config.py as key=value, e.g. patience=5."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit of each run.", min=0)] = None,
    quick: Annotated[
        bool, typer.Option(help="100 labels, 10 masks, 128 px, few steps: half an hour.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed exports.")] = None,
    device: Device = "auto",
) -> None:
    """Train the paper's table on other data."""
    keep_freed_memory()
    console = Console()
    with problems_explained(console):
        label_budgets = labels or (["100"] if quick else ["100", "1000", "all"])
        mask_budgets = masks or (["10"] if quick else ["10", "50", "all"])
        cells = table_cells(
            model or list(TABLE_MODELS),
            [parse_budget(text) for text in label_budgets],
            [parse_budget(text) for text in mask_budgets],
        )
        overrides = (*(QUICK_SETTINGS if quick else ()), *(set_ or ()))
        plan = Plan(
            cells=tuple(cells),
            seeds=tuple(range(1, 1 + (seeds or (QUICK_SEEDS if quick else 3)))),
            configs={
                cell: configure(
                    preset, model=cell.model, overrides=(*overrides, *_budgets_as_settings(cell))
                )
                for cell in cells
            },
            minutes=minutes,
            most_films=QUICK_FILMS if quick else None,
            device=chosen_device(device),
        )
        reproduce(
            plan,
            out,
            learnt=load_exports(data, cache),
            other=load_exports(cross, cache) if cross else None,
            console=console,
        )
    console.print(f"{out / 'table.md'}", highlight=False, soft_wrap=True)


def _budgets_as_settings(cell: Cell) -> tuple[str, str]:
    """Settings like any other, so that what a training would refuse is refused at the start."""
    return f"labels={json.dumps(cell.labels)}", f"masks={json.dumps(cell.masks)}"


def reproduce(
    plan: Plan, out: Path, *, learnt: ImageTable, other: ImageTable | None, console: Console
) -> Grid:
    """Train and score every row with every seed; what is done already is not done again.

    Args:
        plan: what is trained.
        out: the grid's folder.
        learnt: images to learn from; its ``val`` split is scored in-domain.
        other: images scored cross-domain, or None.
        console: where progress goes.

    Returns:
        All results, as they stand in the tables.

    Raises:
        TrainingError: there is nothing to train on or to score, or a run failed.
    """
    if not _films(learnt, "val", plan.most_films):
        raise TrainingError(
            "no image of split 'val' in the exports of --data, so there is nothing to score; write "
            "val into the split column of labels.csv for the images of some patients"
        )
    described = _described(learnt), _described(other) if other else None
    grid = Grid((), *described)
    runs = [(seed, cell) for seed in plan.seeds for cell in plan.cells]
    for number, (seed, cell) in enumerate(runs, start=1):
        folder = out / cell.name / f"seed-{seed}"
        config = plan.configs[cell].model_copy(update={"seed": seed})
        console.rule(f"{number} of {len(runs)}: {cell.name}, seed {seed}")
        result = read_result(folder, cell, config)
        if result is None:
            result = _train_and_score(plan, cell, config, folder, learnt, other, console)
        grid = Grid((*grid.results, result), *described)
        write_tables(out, grid)
    return grid


def _train_and_score(
    plan: Plan,
    cell: Cell,
    config: TrainingConfig,
    folder: Path,
    learnt: ImageTable,
    other: ImageTable | None,
    console: Console,
) -> Result:
    is_begun = (folder / "state").exists()
    if is_begun:
        require_same_settings(folder, read_config(folder), config)
    spent = read_progress(folder / "state").seconds / 60 if is_begun else 0.0
    train(
        learnt,
        config,
        folder,
        version="0",
        resume=is_begun,
        device=plan.device,
        minutes=None if plan.minutes is None else max(0.0, plan.minutes - spent),
        console=console,
    )
    state = read_progress(folder / "state")
    if is_unfinished(config, state, plan.minutes):
        raise TrainingError(
            f"stopped at step {state.step} of {config.total_steps} of {cell.name}, seed "
            f"{config.seed}; the same command goes on from there"
        )
    predictor = Predictor.load(folder / "model", plan.device)
    figures: dict[Domain, dict[str, Any]] = {
        domain: _scores(table, rows, predictor)
        for domain, table, rows in _sets(plan, learnt, other)
    }
    pools = divide_as_configured(learnt.records, config)
    labelled, masked = len(pools.labelled), len(pools.masked)
    result = Result(cell, config, state.seconds, state.step, figures, labelled, masked)
    write_result(folder, result)
    return result


def is_unfinished(config: TrainingConfig, state: TrainingState, minutes: float | None) -> bool:
    """Whether a run was stopped from outside: with steps, time and patience left."""
    return (
        state.step < config.total_steps
        and (minutes is None or state.seconds < minutes * 60 - CLOCK_SECONDS)
        and not ran_out_of_patience(config, state)
    )


def _sets(
    plan: Plan, learnt: ImageTable, other: ImageTable | None
) -> Iterator[tuple[Domain, ImageTable, list[int]]]:
    yield "in-domain", learnt, _films(learnt, "val", plan.most_films)
    if other is not None:
        yield "cross-domain", other, _films(other, None, plan.most_films)


def _scores(table: ImageTable, rows: list[int], predictor: Predictor) -> dict[str, Any]:
    """All figures that are numbers, and AUROC within each view."""
    report, _ = evaluate_rows(table, rows, predictor, full_size=False)
    figures = {name: value for name, value in report.items() if isinstance(value, int | float)}
    figures |= {
        f"auroc_{view}": group["auroc"]
        for view, group in report["by_view"].items()
        if group.get("auroc") is not None
    }
    return figures


def _films(table: ImageTable, split: str | None, most: int | None) -> list[int]:
    """Rows of a split, at most so many of them; the same ones whatever else the table holds."""
    rows = [row for row, record in enumerate(table.records) if split in (None, record.split)]

    def place(row: int) -> bytes:
        return hashlib.sha256(table.records[row].sop_instance_uid.encode()).digest()

    return sorted(sorted(rows, key=place)[:most])


def _described(table: ImageTable) -> str:
    """How many images of which sources and splits."""
    counts: dict[str, int] = {}
    for record in table.records:
        name = f"{record.source or 'unnamed'} {record.split or 'without split'}"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    typer.run(main)
