"""Small grids of short runs for tests of a reproduction."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from model.image_table import ImageTable
from model.reproduce import Plan, reproduce
from model.reproduction_results import Grid
from model.table_grid import Cell
from tests.model.films import film_table
from tests.model.runs import short

CELLS = (Cell("unet", None, 2), Cell("umtl-ssl", 4, 2), Cell("multimix", 4, 2))


def films_to_learn_from() -> ImageTable:
    """20 drawn films, the last six of them of the val split."""
    table = film_table(20)
    records = tuple(
        replace(r, split="val" if n >= 14 else "train") for n, r in enumerate(table.records)
    )
    return ImageTable(records, table.images, table.masks, ())


def films_of_elsewhere() -> ImageTable:
    """8 drawn films that are none of those to learn from."""
    table = film_table(28, source="Elsewhere", split=None)
    return ImageTable(table.records[20:], table.images[20:], table.masks[20:], ())


def plan(
    *cells: Cell,
    seeds: tuple[int, ...] = (1,),
    settings: tuple[str, ...] = (),
    most_films: int | None = None,
) -> Plan:
    """Six steps of each row, as ``tests.model.runs`` has them."""
    configs = {
        cell: short("paper", *settings, model=cell.model).model_copy(
            update={"labels": cell.labels, "masks": cell.masks}
        )
        for cell in cells
    }
    return Plan(cells, seeds, configs, most_films, "cpu")


def reproduced(
    a_plan: Plan,
    out: Path,
    learnt: ImageTable,
    other: ImageTable | None = None,
    printed: io.StringIO | None = None,
) -> Grid:
    """Reproduce, with what is said going where a test wants it."""
    console = Console(file=printed or io.StringIO(), width=500)
    return reproduce(a_plan, out, learnt=learnt, other=other, console=console)
