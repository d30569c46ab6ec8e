"""Which of many settings help: a design of few runs, and what they say of each setting.

Turning one setting at a time spends every run on one question. In a Plackett-Burman design each run
turns about half of all settings on, and every two settings agree as often as they differ, so all
runs speak of every setting at once: 24 runs tell of each as precisely as 24 runs spent on it alone.
The price is the assumption that settings add up; where two of them reinforce each other, the design
spreads that thinly over the others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.presets import changed

RUNS: Final = 24
SEEDS: Final = 4
_PRIME: Final = RUNS - 1
_SEED_COLUMNS: Final = 2
MOST_TECHNIQUES: Final = _PRIME - _SEED_COLUMNS


@dataclass(frozen=True)
class Technique:
    """A setting, or several that belong together, that a run has or has not.

    Attributes:
        name: as the table of effects shows it.
        on: settings of ``TrainingConfig`` with it, by name as after ``--set``.
        off: the same settings without it.
        within: name of the technique without which this one does nothing, and is off.
    """

    name: str
    on: Mapping[str, Any]
    off: Mapping[str, Any]
    within: str | None = None


@dataclass(frozen=True)
class ScreeningRun:
    """One run of the design.

    Attributes:
        number: from 0.
        seed: of the run.
        levels: of each technique by name: 1 on, -1 off, 0 off because that which it builds on is.
    """

    number: int
    seed: int
    levels: Mapping[str, int] = field(default_factory=dict)

    def config(self, base: TrainingConfig, techniques: Sequence[Technique]) -> TrainingConfig:
        """The base with this run's techniques turned on and off.

        Raises:
            TrainingError: a setting is unknown or does not go with the others.
        """
        settings: dict[str, Any] = {"seed": self.seed}
        for technique in techniques:
            is_on = self.levels[technique.name] == 1
            settings |= technique.on if is_on else technique.off
        return changed(base, overrides=tuple(f"{k}={json.dumps(v)}" for k, v in settings.items()))


@dataclass(frozen=True)
class Effect:
    """What a technique does to a figure.

    Attributes:
        mean: with it minus without it.
        margin: half the width of the interval that holds the true mean in 95 of 100 designs.
    """

    mean: float
    margin: float

    @property
    def is_told_from_chance(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.mean) > self.margin


def screening_runs(techniques: Sequence[Technique]) -> list[ScreeningRun]:
    """The runs that tell what each technique does, four seeds over all of them.

    Raises:
        TrainingError: there are more techniques than the design has room for, or one builds on a
            technique that does not stand before it.
    """
    if len(techniques) > MOST_TECHNIQUES:
        raise TrainingError(f"{RUNS} runs tell of {MOST_TECHNIQUES} techniques at most")
    design = plackett_burman()
    runs = []
    for number, row in enumerate(design):
        low, high = (int(level > 0) for level in row[-_SEED_COLUMNS:])
        levels: dict[str, int] = {}
        for technique, level in zip(techniques, row, strict=False):
            if technique.within is not None and technique.within not in levels:
                raise TrainingError(f"{technique.name} stands before {technique.within}")
            builds_on = 1 if technique.within is None else levels[technique.within]
            levels[technique.name] = int(level) if builds_on == 1 else 0
        runs.append(ScreeningRun(number, 1 + low + 2 * high, levels))
    return runs


def plackett_burman() -> NDArray[np.int8]:
    """The design of 24 runs by Paley's construction over the integers modulo 23.

    Returns:
        int8, (24, 23), each -1 or 1; every two columns are orthogonal and each sums to 0.
    """
    squares = {n * n % _PRIME for n in range(1, _PRIME)}
    first = np.array([1 if n in squares or n == 0 else -1 for n in range(_PRIME)], dtype=np.int8)
    cycled = [np.roll(first, shift) for shift in range(_PRIME)]
    return np.array([*cycled, -np.ones(_PRIME, dtype=np.int8)], dtype=np.int8)


def effects_on(figures: Mapping[int, float], runs: Sequence[ScreeningRun]) -> dict[str, Effect]:
    """What each technique does to a figure, by least squares over the runs that have it.

    Seeds shift the figure of all of their runs alike, whatever is turned on.

    Args:
        figures: by number of the run.
        runs: of the design.

    Returns:
        By name of the technique; empty with too few runs to tell chance from effect.
    """
    done = [run for run in runs if run.number in figures]
    names = list(runs[0].levels)
    seeds = sorted({run.seed for run in done})
    unknowns = len(seeds) + len(names)
    if len(done) <= unknowns:
        return {}
    columns = np.array(
        [
            [float(run.seed == seed) for seed in seeds] + [0.5 * run.levels[name] for name in names]
            for run in done
        ]
    )
    outcome = np.array([figures[run.number] for run in done])
    if np.linalg.matrix_rank(columns) < unknowns:
        return {}
    found, *_ = np.linalg.lstsq(columns, outcome, rcond=None)
    freedom = len(done) - unknowns
    variance = float(((outcome - columns @ found) ** 2).sum()) / freedom
    spread = np.sqrt(variance * np.diag(np.linalg.inv(columns.T @ columns)))
    reach = float(stats.t.ppf(0.975, freedom))
    return {
        name: Effect(float(found[place]), reach * float(spread[place]))
        for place, name in enumerate(names, start=len(seeds))
    }
