"""The paper's table for other data: ``table.csv`` for programs, ``table.md`` for people.

The Markdown says first what may be concluded and what not: what differs from the paper, which rows
answer a constant, and whether the bridge and the unlabelled masks (MultiMix) add anything to the
same model without them (UMTL-SSL).
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from model.reproduction_results import Grid
from model.reproduction_verdicts import (
    budgets_not_filled,
    constant_answers,
    constant_rows,
    differences,
    verdicts_on_the_bridge,
)
from model.table_grid import Domain, paper_figures

# Figure, heading, digits: the paper's, then what it leaves out.
FIGURES: Final = (
    ("accuracy", "accuracy", 3),
    ("f1_normal", "F1 normal", 3),
    ("f1_pneumonia", "F1 pneumonia", 3),
    ("auroc", "AUROC", 3),
    ("auroc_figure_6", "AUROC in the paper's figure 6", 3),
    ("dice", "Dice", 3),
    ("iou", "Jaccard", 3),
    ("mask_precision", "precision of the mask", 3),
    ("mask_recall", "recall of the mask", 3),
    ("hausdorff", "Hausdorff, px", 1),
    ("ssim", "SSIM", 3),
    ("balanced_accuracy", "balanced accuracy", 3),
    ("ece", "ECE", 3),
    ("shortcut_auroc", "AUROC of trivial features alone", 3),
    ("auroc_PA", "AUROC within PA", 3),
    ("auroc_AP", "AUROC within AP", 3),
    ("hd95_px", "HD95, px", 1),
)


def write_tables(out: Path, grid: Grid) -> None:
    """Write ``table.csv`` and ``table.md``, each replaced in one step."""
    unfinished = out / "table.part"
    with unfinished.open("w", newline="") as file:
        csv.writer(file).writerows(csv_rows(grid))
    unfinished.replace(out / "table.csv")
    unfinished.write_text("\n".join(markdown(grid)) + "\n")
    unfinished.replace(out / "table.md")


def csv_rows(grid: Grid) -> Iterator[list[object]]:
    """A line for each row, domain and figure: mean, spread over the seeds, the paper's."""
    paper = paper_figures()
    yield ["model", "labels", "masks", "domain", "figure", "mean", "sd", "seeds", "paper"]
    for cell in grid.cells:
        for domain in grid.domains:
            published = paper.get((cell.model, *cell.budgets, domain), {})
            for name, _, _ in FIGURES:
                values = grid.values(cell, domain, name)
                if values or name in published:
                    yield [
                        cell.model,
                        *cell.budgets,
                        domain,
                        name,
                        f"{np.mean(values):.5g}" if values else "",
                        f"{np.std(values, ddof=1):.2g}" if len(values) > 1 else "",
                        len(values),
                        published.get(name, ""),
                    ]


def markdown(grid: Grid) -> Iterator[str]:
    """The whole page, line by line."""
    yield "# The paper's table on other data"
    yield ""
    yield "## What may be concluded"
    yield ""
    for sentence in (
        *verdicts_on_the_bridge(grid),
        *constant_rows(grid),
        *constant_answers(grid),
        *budgets_not_filled(grid),
        *differences(grid),
    ):
        yield f"- {sentence}"
    for domain in grid.domains:
        yield ""
        yield f"## {domain.capitalize()}"
        yield ""
        yield "Mean ± standard deviation over the runs, in brackets the paper's on its own data."
        yield ""
        yield from _table(grid, domain)


def _table(grid: Grid, domain: Domain) -> Iterator[str]:
    paper = paper_figures()
    shown = [
        (name, heading, digits)
        for name, heading, digits in FIGURES
        if any(
            grid.values(cell, domain, name)
            or name in paper.get((cell.model, *cell.budgets, domain), {})
            for cell in grid.cells
        )
    ]
    headings = ["model", "labels", "masks", "runs", *(heading for _, heading, _ in shown)]
    yield f"| {' | '.join(headings)} |"
    yield "|" + " --- |" * len(headings)
    for cell in grid.cells:
        published = paper.get((cell.model, *cell.budgets, domain), {})
        cells = [
            _figure_cell(grid.values(cell, domain, name), published.get(name), digits)
            for name, _, digits in shown
        ]
        runs = str(len(grid.runs(cell)))
        yield f"| {' | '.join([cell.model, *cell.budgets, runs, *cells])} |"


def _figure_cell(values: Sequence[float], published: float | None, digits: int) -> str:
    parts = []
    if values:
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        parts.append(f"{np.mean(values):.{digits}f}{spread}")
    if published is not None:
        parts.append(f"({published:.{digits}f})")
    return " ".join(parts)
