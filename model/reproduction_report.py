"""The paper's table for other data: ``table.csv`` for programs, ``table.md`` for people.

The Markdown says first what may be concluded and what not: what differs from the paper, which rows
answer a constant, and whether the bridge and the unlabelled masks (MultiMix) add anything to the
same model without them (UMTL-SSL).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats

from model.config import TrainingConfig
from model.table_grid import DOMAINS, Cell, Domain, paper_figures

# Figure, heading, digits: the paper's, then what it leaves out.
FIGURES: Final = (
    ("accuracy", "accuracy", 3),
    ("f1_normal", "F1 normal", 3),
    ("f1_pneumonia", "F1 pneumonia", 3),
    ("auroc", "AUROC", 3),
    ("dice", "Dice", 3),
    ("iou", "Jaccard", 3),
    ("hausdorff", "Hausdorff, px", 1),
    ("ssim", "SSIM", 3),
    ("balanced_accuracy", "balanced accuracy", 3),
    ("ece", "ECE", 3),
    ("shortcut_auroc", "AUROC of trivial features alone", 3),
    ("auroc_PA", "AUROC within PA", 3),
    ("auroc_AP", "AUROC within AP", 3),
    ("hd95_px", "HD95, px", 1),
)
# As the paper's column is called here; its distances are averages, ours the largest.
_MEASURED_AS: Final = {"hausdorff": "hausdorff_px"}
CONSTANT_F1: Final = 0.1
BASELINE, METHOD = "umtl-ssl", "multimix"


@dataclass(frozen=True)
class Result:
    """One run, scored.

    Attributes:
        cell: its row.
        config: its settings.
        seconds: spent training.
        steps: optimiser steps done.
        figures: by domain, as ``model.evaluate`` names them.
    """

    cell: Cell
    config: TrainingConfig
    seconds: float
    steps: int
    figures: dict[Domain, dict[str, Any]]

    def figure(self, domain: Domain, name: str) -> float | None:
        """A figure by its name in the table; None where the run has it not."""
        value = self.figures.get(domain, {}).get(_MEASURED_AS.get(name, name))
        return None if value is None else float(value)


@dataclass(frozen=True)
class Grid:
    """All results so far.

    Attributes:
        results: of every run.
        learnt: images of ``--data``, in words.
        other: images of ``--cross``, in words, or None.
    """

    results: tuple[Result, ...]
    learnt: str
    other: str | None

    @property
    def cells(self) -> list[Cell]:
        """The rows, in order."""
        return list(dict.fromkeys(result.cell for result in self.results))

    @property
    def domains(self) -> list[Domain]:
        """Those that were scored."""
        return [d for d in DOMAINS if any(d in result.figures for result in self.results)]

    def values(self, cell: Cell, domain: Domain, name: str) -> list[float]:
        """One figure of each seed of a row that has it."""
        found = (r.figure(domain, name) for r in self.results if r.cell == cell)
        return [value for value in found if value is not None]


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
        *differences(grid),
    ):
        yield f"- {sentence}"
    for domain in grid.domains:
        yield ""
        yield f"## {domain.capitalize()}"
        yield ""
        yield "Mean ± standard deviation over the seeds, in brackets the paper's on its own data."
        yield ""
        yield from _table(grid, domain)


def _table(grid: Grid, domain: Domain) -> Iterator[str]:
    paper = paper_figures()
    shown = [
        figure for figure in FIGURES if any(grid.values(c, domain, figure[0]) for c in grid.cells)
    ]
    headings = ["model", "labels", "masks", *(heading for _, heading, _ in shown)]
    yield f"| {' | '.join(headings)} |"
    yield "|" + " --- |" * len(headings)
    for cell in grid.cells:
        published = paper.get((cell.model, *cell.budgets, domain), {})
        cells = [
            _figure_cell(grid.values(cell, domain, name), published.get(name), digits)
            for name, _, digits in shown
        ]
        yield f"| {' | '.join([cell.model, *cell.budgets, *cells])} |"


def _figure_cell(values: Sequence[float], published: float | None, digits: int) -> str:
    parts = []
    if values:
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        parts.append(f"{np.mean(values):.{digits}f}{spread}")
    if published is not None:
        parts.append(f"({published:.{digits}f})")
    return " ".join(parts)


def verdicts_on_the_bridge(grid: Grid) -> Iterator[str]:
    """Whether MultiMix beats UMTL-SSL, seed by seed, in Jaccard and in AUROC."""
    compared = False
    for cell in grid.cells:
        baseline = Cell(BASELINE, cell.labels, cell.masks)
        if cell.model != METHOD or baseline not in grid.cells:
            continue
        for domain in grid.domains:
            for name, heading in (("iou", "Jaccard"), ("auroc", "AUROC")):
                pairs = _paired(grid, cell, baseline, domain, name)
                if pairs:
                    compared = True
                    labels, masks = cell.budgets
                    yield (
                        f"MultiMix against UMTL-SSL, {labels} labels and {masks} masks, {domain}, "
                        f"{heading}: {_verdict(np.array(pairs))}"
                    )
    if not compared:
        yield "MultiMix and UMTL-SSL do not both stand in this table, so nothing is said of them."


def _paired(grid: Grid, cell: Cell, baseline: Cell, domain: Domain, name: str) -> list[float]:
    """Differences of the same figure with the same seed."""
    found = {
        (result.cell, result.config.seed): value
        for result in grid.results
        if (value := result.figure(domain, name)) is not None
    }
    return [
        value - found[baseline, seed]
        for (of, seed), value in found.items()
        if of == cell and (baseline, seed) in found
    ]


def _verdict(differences_n: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """A paired difference in words, with its 95 % interval by Student's t."""
    mean, count = differences_n.mean(), len(differences_n)
    if count < 2:
        return f"{mean:+.3f} in a single run, which decides nothing."
    half = stats.t.ppf(0.975, count - 1) * differences_n.std(ddof=1) / np.sqrt(count)
    interval = (
        f"{mean:+.3f} (95 % interval {mean - half:+.3f} to {mean + half:+.3f}, {count} seeds)"
    )
    if mean - half > 0:
        return f"better by {interval}."
    if mean + half < 0:
        return f"worse by {interval}."
    return f"no difference that these seeds can tell: {interval}."


def constant_rows(grid: Grid) -> Iterator[str]:
    """The rows, ours and the paper's, that hardly ever name one of the classes."""
    ours, theirs = [], []
    paper = paper_figures()
    for cell in grid.cells:
        if not cell.tasks.classify:
            continue
        for domain in grid.domains:
            name = f"{cell.name} {domain}"
            f1s = [grid.values(cell, domain, f) for f in ("f1_normal", "f1_pneumonia")]
            # A class without F1 is never named; where both lack it there are no labels at all.
            means = [float(np.mean(values)) if values else 0.0 for values in f1s]
            if any(f1s) and min(means) < CONSTANT_F1:
                ours.append(name)
            published = paper.get((cell.model, *cell.budgets, domain), {})
            both = [published.get(f) for f in ("f1_normal", "f1_pneumonia")]
            if any(f1 is not None and f1 < CONSTANT_F1 for f1 in both):
                theirs.append(name)
    rule = f"(F1 of one class below {CONSTANT_F1})"
    yield f"Rows that answer a constant {rule}, here: {', '.join(ours) or 'none'}."
    yield f"The same in the paper: {', '.join(theirs) or 'none'}."


def constant_answers(grid: Grid) -> Iterator[str]:
    """What always giving the same answer would score on these films."""
    for domain in grid.domains:
        for result in grid.results:
            figures = result.figures.get(domain, {})
            if "accuracy_always_normal" in figures:
                yield (
                    f"{domain.capitalize()}, always answering normal has an accuracy of "
                    f"{figures['accuracy_always_normal']:.3f}, always pneumonia of "
                    f"{figures['accuracy_always_pneumonia']:.3f}."
                )
                break


def differences(grid: Grid) -> Iterator[str]:
    """What differs from the paper."""
    yield f"Data learnt from and scored in-domain: {grid.learnt}."
    if grid.other is not None:
        yield f"Data scored cross-domain, never learnt from: {grid.other}."
    yield (
        "The paper learns masks from JSRT (247 adult films) and classes from CheX (5,856 films of "
        "children), and scores on Montgomery County (138) and NIHX (4,185)."
    )
    sides = sorted({stage.side for r in grid.results for stage in r.config.stages})
    steps = sorted({result.steps for result in grid.results})
    rates = sorted({result.config.learning_rate for result in grid.results})
    minutes = [result.seconds / 60 for result in grid.results]
    yield (
        f"Image side {_listed(sides)} px (the paper: 256), {_listed(steps)} steps (the paper: some "
        f"24 effective epochs), learning rate {_listed(rates)} (1e-4), {min(minutes):.1f} to "
        f"{max(minutes):.1f} minutes a run."
    )
    yield (
        "Hausdorff is the largest distance here and an average in the paper. Masks are scored hard "
        "at 0.5, where Dice = 2J / (1 + J) holds for each; most of the paper's rows without the "
        "bridge break that, so its Dice does not compare between rows, its Jaccard does."
    )


def _listed(numbers: Sequence[float]) -> str:
    return (
        " to ".join(f"{n:g}" for n in (numbers[0], numbers[-1]))
        if len(numbers) > 1
        else (f"{numbers[0]:g}")
    )
