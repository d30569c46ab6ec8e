"""Train the paper's table on other data: a grid of models, budgets and seeds.

    python -m model.reproduce --data EXPORT --cross EXPORT --out GRID
    python -m model.reproduce --data EXPORT --cross EXPORT --out GRID --quick
    python -m model.reproduce --data EXPORT --out GRID --model multimix --model umtl-ssl \
        --labels 100 --masks 10 --preset best --minutes 30     # at equal wall time

``--data`` is learnt from and scored in-domain, on its ``val`` split; ``--cross`` is never learnt
from and scored as a whole. GRID holds a run for each row of the table and seed, and after each of
them ``table.csv`` and ``table.md``: means and spreads beside the paper's own figures, and what may
be concluded from them. Stopped at any moment, the same command goes on where it stopped. What is
trained already is scored again where other films are to be scored.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model.allocator import keep_freed_memory
from model.command_line import Device, chosen_device, problems_explained
from model.config import TrainingConfig
from model.dataset import load_exports
from model.grid_run import GridRun, kept_or_trained, scored
from model.image_table import ImageTable
from model.presets import TABLE_MODELS, configure
from model.reproduction_report import write_tables
from model.reproduction_results import Grid
from model.scored_sets import ScoredSet, in_words, require_never_learnt, scored_sets
from model.splits import divide_as_configured
from model.table_grid import Cell, parse_budget, table_cells

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


@dataclass(frozen=True)
class Plan:
    """What is trained and how it is scored.

    Attributes:
        cells: rows of the table.
        seeds: each row is trained once with each.
        configs: the settings of each row, but for the seed.
        most_films: films scored of each set; None for all.
        device: torch device.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    configs: dict[Cell, TrainingConfig]
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
    minutes: Annotated[
        float | None, typer.Option(help="Time limit of each run, all its starts together.")
    ] = None,
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
        overrides = (
            *(QUICK_SETTINGS if quick else ()),
            *(set_ or ()),
            *([] if minutes is None else [f"minutes={minutes}"]),
        )
        plan = Plan(
            cells=tuple(cells),
            seeds=tuple(range(1, 1 + (seeds or (QUICK_SEEDS if quick else 3)))),
            configs={
                cell: configure(
                    preset, model=cell.model, overrides=(*overrides, *_budgets_as_settings(cell))
                )
                for cell in cells
            },
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
    console.print(f"{out / 'table.md'}", highlight=False, markup=False, soft_wrap=True)


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
        TrainingError: there is nothing to train on or to score, a film of ``other`` is learnt
            from, a run failed, or one of an earlier start learnt from something else, with other
            settings or for another time.
    """
    sets = scored_sets(learnt, other, plan.most_films)
    pools = divide_as_configured(learnt.records, plan.configs[plan.cells[0]])
    used = [*pools.unlabelled, *pools.validation]
    if other is not None:
        require_never_learnt(learnt, used, other, sets[-1].rows)
    grid = _empty_grid(plan, learnt, used, sets)
    runs = [(seed, cell) for seed in plan.seeds for cell in plan.cells]
    for number, (seed, cell) in enumerate(runs, start=1):
        run = GridRun(
            cell=cell,
            config=plan.configs[cell].model_copy(update={"seed": seed}),
            folder=out / cell.name / f"seed-{seed}",
            device=plan.device,
        )
        console.rule(f"{number} of {len(runs)}: {run.name}")
        result = scored(run, kept_or_trained(run, learnt, console), sets)
        grid = replace(grid, results=(*grid.results, result))
        write_tables(out, grid)
    return grid


def _empty_grid(
    plan: Plan, learnt: ImageTable, used: Sequence[int], sets: Sequence[ScoredSet]
) -> Grid:
    """What the tables say of their data, before any result."""
    return Grid(
        results=(),
        learnt=in_words(learnt, used),
        scored={one.domain: in_words(one.table, one.rows) for one in sets},
        most_films=plan.most_films,
    )


if __name__ == "__main__":
    typer.run(main)
