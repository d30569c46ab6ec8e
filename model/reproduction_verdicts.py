"""What may be concluded from a table of results, and what not, in sentences."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from scipy import stats

from model.config import TrainingConfig
from model.image_table import TABLE_SIDE
from model.presets import PAPER
from model.reproduction_results import Grid
from model.table_grid import Cell, Domain, paper_figures

CONSTANT_F1: Final = 0.1
BASELINE, METHOD = "umtl-ssl", "multimix"
# Told elsewhere, or of no weight for what is learnt.
_SAID_ELSEWHERE: Final = {
    *("tasks", "labels", "masks", "stages", "learning_rate", "validate_every", "minutes", "seed"),
}


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
    if "cross-domain" in grid.domains:
        yield (
            "On the paper's cross-domain films (2,754 normal, 1,431 pneumonia) always answering "
            "normal has an accuracy of 0.658, above every row of its table."
        )


def budgets_not_filled(grid: Grid) -> Iterator[str]:
    """How much "all" is here, and the rows that learnt from less than their budget says."""
    for task, what in (("labelled", "labels"), ("masked", "masks")):
        found = {
            cell: counts
            for cell in grid.cells
            if (counts := _annotations_of(grid, cell, task)) and cell.budgets[what == "masks"]
        }
        whole = [n for cell, counts in found.items() if getattr(cell, what) is None for n in counts]
        if whole:
            yield f"All {what} are {_listed(sorted({min(whole), max(whole)}))} here."
        short = [
            f"{cell.name} ({_listed(sorted({min(counts), max(counts)}))})"
            for cell, counts in found.items()
            if (budget := getattr(cell, what)) is not None and min(counts) < budget
        ]
        if short:
            yield f"Rows with fewer {what} to learn from than their budget: {', '.join(short)}."


def _annotations_of(grid: Grid, cell: Cell, task: str) -> list[int]:
    counts = (getattr(result, task) for result in grid.runs(cell))
    return [count for count in counts if count is not None]


def differences(grid: Grid) -> Iterator[str]:
    """What differs from the paper."""
    yield f"Data learnt from, with the patients held out of it: {grid.learnt}."
    for domain in grid.domains:
        yield f"Films scored {domain}, never learnt from: {grid.scored[domain]}."
    if grid.most_films is not None:
        yield (
            f"No more than {grid.most_films} films of each set are scored, drawn by their SOP "
            "Instance UID."
        )
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
    changed = settings_unlike_the_papers([result.config for result in grid.results])
    yield f"Other settings than the paper's: {', '.join(changed) or 'none'}."
    yield (
        "Unlabelled batches of both tasks are drawn from all films learnt from, those whose labels "
        "are used among them (the paper: from the rest of each task's own set). The saliency of a "
        "training step is that of the pass that learns, with its dropout (the paper: of a second "
        "pass without)."
    )
    yield (
        "Hausdorff is the largest distance here and an average in the paper. Masks are scored hard "
        "at 0.5, where Dice = 2J / (1 + J) holds for each; most of the paper's rows without the "
        "bridge break that, so its Dice does not compare between rows, its Jaccard does."
    )
    yield from how_answers_are_taken(grid)
    yield (
        "The paper's figures are those of its supplement; its main table has other Hausdorff "
        "distances for UMTLS with all labels and 10 or all masks, in-domain, and another Hausdorff "
        "distance and SSIM for UMTL with all of both, cross-domain. Its AUROC is that of the "
        "authors' slides, which contradict the supplement's figure 6; that has its own column."
    )


def how_answers_are_taken(grid: Grid) -> Iterator[str]:
    """What is done to a network's answers before they are scored, and not in the paper."""
    if any(cell.tasks.classify for cell in grid.cells):
        counts = [r.held_out_labels for r in grid.results if r.held_out_labels is not None]
        labels = f"all {_listed(sorted({min(counts), max(counts)}))} labels" if counts else "labels"
        yield (
            "Accuracy, balanced accuracy, F1 and ECE are of probabilities after Platt scaling, cut "
            f"at an operating point. Both are fitted on {labels} of the patients held out from the "
            "training part, in every row: a budget counts only what is learnt from. The paper "
            "takes the likelier class."
        )
    if any(cell.tasks.segment for cell in grid.cells):
        yield (
            f"Masks are scored at {TABLE_SIDE} x {TABLE_SIDE}, as the paper's are, whatever side "
            "the network reads, and after specks are removed and holes are filled, also with the "
            "preset `paper`; the paper tells of no such step."
        )
    yield (
        "Of each run the checkpoint is scored that did best by Dice and AUROC on the patients held "
        "out; the paper goes by the loss."
    )


def settings_unlike_the_papers(configs: Sequence[TrainingConfig]) -> list[str]:
    """Each setting whose value in some run is not the paper's: ``class_batch 6 (10)``."""
    told = []
    for name in TrainingConfig.model_fields.keys() - _SAID_ELSEWHERE:
        found = sorted({f"{getattr(config, name)}" for config in configs})
        if found != [f"{getattr(PAPER, name)}"]:
            told.append(f"{name} {' or '.join(found)} ({getattr(PAPER, name)})")
    return sorted(told)


def _listed(numbers: Sequence[float]) -> str:
    return (
        " to ".join(f"{n:g}" for n in (numbers[0], numbers[-1]))
        if len(numbers) > 1
        else (f"{numbers[0]:g}")
    )
