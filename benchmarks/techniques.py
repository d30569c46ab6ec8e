"""What each technique of the ``best`` preset, and each that is not in it, does with few labels.

    python -m benchmarks.techniques --data CHEX --cross CXR --out RUNS [--jobs 2]

24 runs with 100 labels and 10 masks turn the techniques on and off by the design of
``model.screening``; each is scored on the ``val`` split of ``--data`` and on all of ``--cross``,
which no run has seen. Stopped at any moment, the same command goes on where it stopped. Ends with
a table of what each technique multiplies error, distance and time by, with 95 % intervals, and
``effects.json`` beside the runs, which holds the logarithms.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model.allocator import keep_freed_memory
from model.config import Stage, TrainingConfig
from model.dataset import load_exports
from model.evaluate import evaluate_rows
from model.image_table import ImageTable
from model.predictor import Predictor
from model.presets import PRESETS
from model.run_state import read_progress
from model.screening import Effect, ScreeningRun, Technique, effects_on, screening_runs
from model.training import train

STAGE = Stage(side=96, steps=300)
WARM_UP = Stage(side=96, steps=100, restores=True)
BASE = PRESETS["best"].model_copy(
    update={"labels": 100, "masks": 10, "stages": (STAGE,), "validate_every": STAGE.steps}
)
TECHNIQUES = (
    Technique("saliency bridge", {"tasks.bridge": True}, {"tasks.bridge": False}),
    Technique(
        "saliency divided by its mean, area pooling",
        {"bridge_scale": "per_image", "bridge_pooling": "area"},
        {"bridge_scale": "raw", "bridge_pooling": "bilinear"},
        within="saliency bridge",
    ),
    Technique(
        "masks of two views agree",
        {"tasks.unlabelled_masks": True},
        {"tasks.unlabelled_masks": False},
    ),
    Technique(
        "a part of another film in the strong view",
        {"strong_view": "patchwork"},
        {"strong_view": "exposure"},
        within="masks of two views agree",
    ),
    Technique("pseudo-labels", {"tasks.pseudo_labels": True}, {"tasks.pseudo_labels": False}),
    Technique(
        "thresholds that adapt",
        {"pseudo_label_threshold": "adaptive"},
        {"pseudo_label_threshold": 0.9},
        within="pseudo-labels",
    ),
    Technique("EMA teacher", {"teacher_decay": 0.995}, {"teacher_decay": 0.0}),
    Technique(
        "self-supervised warm-up",
        {"stages": [WARM_UP.model_dump(), STAGE.model_dump()]},
        {"stages": [STAGE.model_dump()]},
    ),
    Technique("group norm in the encoder", {"encoder_norm": "group"}, {"encoder_norm": "instance"}),
    Technique("residual blocks", {"residual": True}, {"residual": False}),
    Technique("context", {"context": True}, {"context": False}),
    Technique(
        "cross-entropy beside Dice",
        {"mask_cross_entropy": 1.0, "mask_weight": 1.0},
        {"mask_cross_entropy": 0.0, "mask_weight": 2.0},
    ),
    Technique("shared annotations", {"share_annotations": True}, {"share_annotations": False}),
    Technique("wider geometry", {"rotate": 20.0, "scale": 0.3}, {"rotate": 12.0, "scale": 0.15}),
    Technique("bent films", {"bend": 0.05}, {"bend": 0.0}),
    Technique("mean over mirror images", {"average_mirrored": True}, {"average_mirrored": False}),
)
SECONDS = "training seconds"


def odds_of_error(share: float) -> float:
    """What techniques multiply: of .95 and .97, the latter is much more than a fiftieth better."""
    return (1 - share) / share


# Set and figure as its report names it, and what of it a technique multiplies.
FIGURES: dict[str, Callable[[float], float]] = {
    "data dice": odds_of_error,
    "data hd95_px": float,
    "data auroc": odds_of_error,
    "data balanced_accuracy": odds_of_error,
    "cross dice": odds_of_error,
    "cross auroc": odds_of_error,
    SECONDS: float,
}


def main() -> None:
    """Train, score, and print what each technique does."""
    arguments = parsed_arguments()
    runs = screening_runs(TECHNIQUES)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        begun = [pool.submit(finish, run, arguments) for run in runs]
        for number, done in enumerate(as_completed(begun), start=1):
            print(f"{number} of {len(runs)}: {done.result()}", flush=True)
    effects = effects_of(arguments.out, runs)
    (arguments.out / "effects.json").write_text(
        json.dumps({key: {n: asdict(e) for n, e in of.items()} for key, of in effects.items()})
    )
    print_effects(effects, Console())


def parsed_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cross", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def finish(run: ScreeningRun, arguments: argparse.Namespace) -> str:
    """Train and score one run, as far as that is not done yet.

    Returns:
        Its folder and the figures, in words.
    """
    keep_freed_memory()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // arguments.jobs))
    folder = arguments.out / f"run-{run.number:02}"
    scored = folder / "figures.json"
    if not scored.exists():
        learnt = load_exports([arguments.data], arguments.cache)
        other = load_exports([arguments.cross], arguments.cache)
        trained(run.config(BASE, TECHNIQUES), folder, learnt)
        predictor = Predictor.load(folder / "model")
        figures = {"data": scores(learnt, predictor, "val"), "cross": scores(other, predictor)}
        scored.write_text(json.dumps(figures))
    found = (f"{name} {value:.3f}" for name, value in figures_of(folder).items())
    return f"{folder.name}, seed {run.seed}: {', '.join(found)}"


def figures_of(folder: Path) -> dict[str, float]:
    """What a run that is trained and scored came to, by name of ``FIGURES``."""
    reports = json.loads((folder / "figures.json").read_text())
    named = [name for name in FIGURES if name != SECONDS]
    figures = {name: float(reports[name.split()[0]][name.split()[1]]) for name in named}
    return figures | {SECONDS: read_progress(folder / "state").seconds}


def trained(config: TrainingConfig, folder: Path, learnt: ImageTable) -> None:
    """Train to the end, from where the folder's run stopped."""
    is_begun = (folder / "state").exists()
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        train(learnt, config, folder, version="0", resume=is_begun, console=Console(file=log))


def scores(table: ImageTable, predictor: Predictor, split: str | None = None) -> dict[str, Any]:
    """The figures of one set on the network's grid, and those of each view."""
    rows = [row for row, record in enumerate(table.records) if split in (None, record.split)]
    report, _ = evaluate_rows(table, rows, predictor, full_size=False)
    return report


def effects_of(out: Path, runs: Sequence[ScreeningRun]) -> dict[str, dict[str, Effect]]:
    """By figure, by technique; of the figure's logarithm, or that of the odds of its error."""
    folders = {run.number: out / f"run-{run.number:02}" for run in runs}
    figures = {
        number: figures_of(folder)
        for number, folder in folders.items()
        if (folder / "figures.json").exists()
    }
    return {
        name: effects_on(
            {n: math.log(multiplied(found[name])) for n, found in figures.items()}, runs
        )
        for name, multiplied in FIGURES.items()
    }


def print_effects(effects: dict[str, dict[str, Effect]], console: Console) -> None:
    """A row for each technique: by what it multiplies error, distance and time."""
    table = Table("technique", *effects)
    for technique in TECHNIQUES:
        table.add_row(technique.name, *(shown(of.get(technique.name)) for of in effects.values()))
    console.print(table)


def shown(effect: Effect | None) -> str:
    """A factor with its interval, ``x0.90 (0.88-0.92)``; bold where chance would hardly do it."""
    if effect is None:
        return "-"
    low, high = (math.exp(effect.mean + sign * effect.margin) for sign in (-1, 1))
    text = f"x{math.exp(effect.mean):.2f} ({low:.2f}-{high:.2f})"
    return f"[bold]{text}[/bold]" if effect.is_told_from_chance else text


if __name__ == "__main__":
    main()
