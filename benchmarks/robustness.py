"""How the figures of a model hold where films come from other machines.

    python -m benchmarks.robustness --data CHEX [--split val] [--checkpoint MODEL] [--every 2]

Scores the films of a split as they are, and again as another exposure, detector, processing or
archive would have given them; masks and labels stay what they are. A model that has learnt the
machine in place of the disease shows here. Ends with one line of JSON.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

from model import SHIPPED_MODEL
from model.allocator import keep_freed_memory
from model.dataset import load_exports
from model.evaluate import evaluate_rows
from model.image_scores import Scored
from model.image_table import ImageTable
from model.predictor import Predictor

GreyFilm = NDArray[np.float64]
"""One film, (256, 256); 0 is black, 1 is white."""

FIGURES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "AUROC": "auroc",
    "ECE": "ece",
    "Dice": "dice",
    "HD95, px": "hd95_px",
    "refused": "share_refused_by_gate",
}


def gamma(power: float) -> Callable[[GreyFilm], GreyFilm]:
    """Another gamma; below 1 the film gets brighter."""
    return lambda film_hw: film_hw**power


def contrast(factor: float) -> Callable[[GreyFilm], GreyFilm]:
    """A narrower window (above 1, which cuts black and white off) or a wider one."""
    return lambda film_hw: (film_hw - 0.5) * factor + 0.5


def blurred(spread_px: float) -> Callable[[GreyFilm], GreyFilm]:
    """A softer detector."""
    return lambda film_hw: ndimage.gaussian_filter(film_hw, spread_px, mode="nearest")


def sharpened(film_hw: GreyFilm) -> GreyFilm:
    """Edges enhanced, as some machines do."""
    edges_hw: GreyFilm = film_hw - ndimage.gaussian_filter(film_hw, 1.5, mode="nearest")
    return film_hw + 1.5 * edges_hw


def equalised(film_hw: GreyFilm) -> GreyFilm:
    """Every grey equally frequent."""
    levels = np.round(film_hw * 255).astype(np.uint8)
    counts = np.bincount(levels.ravel(), minlength=256).cumsum()
    equal_hw: GreyFilm = (counts / counts[-1])[levels]
    return equal_hw


def noisy(spread: float) -> Callable[[GreyFilm], GreyFilm]:
    """A lower dose; the same noise in every film."""
    noise_hw = np.random.default_rng(0).normal(0, spread, (256, 256))
    return lambda film_hw: film_hw + noise_hw


def compressed(quality: int) -> Callable[[GreyFilm], GreyFilm]:
    """An archive that has stored the film as JPEG."""

    def decoded(film_hw: GreyFilm) -> GreyFilm:
        stored = io.BytesIO()
        grey = Image.fromarray(np.round(film_hw * 255).astype(np.uint8))
        grey.save(stored, "JPEG", quality=quality)
        return np.asarray(Image.open(stored), dtype=np.float64) / 255

    return decoded


ALTERATIONS: dict[str, Callable[[GreyFilm], GreyFilm]] = {
    "as it is": lambda film_hw: film_hw,
    "gamma 0.6": gamma(0.6),
    "gamma 1.6": gamma(1.6),
    "contrast x 0.6": contrast(0.6),
    "contrast x 1.5, cut off": contrast(1.5),
    "every grey equally frequent": equalised,
    "blurred by 1 px": blurred(1),
    "blurred by 2 px": blurred(2),
    "edges enhanced": sharpened,
    "noise of 5 %": noisy(0.05),
    "JPEG of quality 20": compressed(20),
}


def altered(table: ImageTable, alter: Callable[[GreyFilm], GreyFilm]) -> ImageTable:
    """A table with each film altered."""
    films = table.images[np.arange(len(table.records))] / 255
    seen = np.stack([np.clip(alter(film_hw), 0, 1) for film_hw in films])
    return replace(table, images=np.round(seen * 255).astype(np.uint8))


def of_rows(table: ImageTable, rows: list[int]) -> ImageTable:
    """Some rows of a table as one."""
    chosen = np.array(rows)
    records = tuple(table.records[row] for row in rows)
    return replace(table, records=records, images=table.images[chosen], masks=table.masks[chosen])


def share_right(scored: list[Scored], class_index: int, operating_point: float) -> float | None:
    """Of the films of one class, those that are told so; None where there is none."""
    of_class = [s.probability for s in scored if s.record.class_index == class_index]
    is_pneumonia = np.array(of_class) >= operating_point
    return float((is_pneumonia == bool(class_index)).mean()) if of_class else None


def figures_of(table: ImageTable, predictor: Predictor) -> dict[str, Any]:
    """The figures of ``model.evaluate``, sensitivity and specificity at the operating point."""
    report, scored = evaluate_rows(table, range(len(table.records)), predictor, full_size=False)
    point = predictor.card.calibration.operating_point
    normal, pneumonia = (share_right(scored, index, point) for index in range(2))
    return report | {"specificity": normal, "sensitivity": pneumonia}


def main() -> int:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="archive export")
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED_MODEL, help="model directory")
    parser.add_argument("--every", type=int, default=1, help="score every so-manyth film")
    parser.add_argument("--cache", type=Path, help="folder of preprocessed exports")
    options = parser.parse_args()
    keep_freed_memory()
    table = load_exports([options.data], options.cache)
    of_split = [row for row, record in enumerate(table.records) if record.split == options.split]
    if not of_split:
        parser.error(f"no film of split {options.split!r}")
    films = of_rows(table, of_split[:: options.every])
    predictor = Predictor.load(options.checkpoint)
    console = Console(width=120)
    progress = track(ALTERATIONS.items(), "scoring", console=Console(stderr=True))
    figures = {name: figures_of(altered(films, alter), predictor) for name, alter in progress}
    shown = Table(f"{len(films.records)} films", *FIGURES)
    for name, found in figures.items():
        values = [found.get(key) for key in FIGURES.values()]
        shown.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values))
    console.print(shown)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
