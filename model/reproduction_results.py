"""What the runs of a reproduction came to, by row of the paper's table, seed and domain."""

from dataclasses import dataclass, field
from typing import Any, Final

from model.config import TrainingConfig
from model.table_grid import DOMAINS, Cell, Domain

# As the paper's column is called here; its distances are averages, ours the largest.
_MEASURED_AS: Final = {"hausdorff": "hausdorff_px"}


@dataclass(frozen=True)
class Result:
    """One run, scored.

    Attributes:
        cell: its row.
        config: its settings.
        seconds: spent training.
        steps: optimiser steps done.
        figures: by domain, as ``model.evaluate`` names them.
        labelled: images whose label it learnt from; None where that was not recorded.
        masked: images whose mask it learnt from; None where that was not recorded.
        held_out_labels: of the patients held out, who choose checkpoint, calibration and operating
            point; None where that was not recorded.
        learnt_sha256: of what it learnt from (``model.learnt_data``).
        scored: hash of the films behind the figures of each domain (``model.scored_sets``).
    """

    cell: Cell
    config: TrainingConfig
    seconds: float
    steps: int
    figures: dict[Domain, dict[str, Any]]
    labelled: int | None = None
    masked: int | None = None
    held_out_labels: int | None = None
    learnt_sha256: str = ""
    scored: dict[Domain, str] = field(default_factory=dict)

    def figure(self, domain: Domain, name: str) -> float | None:
        """A figure by its name in the table; None where the run has it not."""
        value = self.figures.get(domain, {}).get(_MEASURED_AS.get(name, name))
        return None if value is None else float(value)


@dataclass(frozen=True)
class Grid:
    """All results so far.

    Attributes:
        results: of every run.
        learnt: the images learnt from and those held out of them, in words.
        scored: the images scored in each domain, in words.
        most_films: how many of each set are scored at most; None for all.
    """

    results: tuple[Result, ...]
    learnt: str
    scored: dict[Domain, str]
    most_films: int | None = None

    @property
    def cells(self) -> list[Cell]:
        """The rows, in order."""
        return list(dict.fromkeys(result.cell for result in self.results))

    @property
    def domains(self) -> list[Domain]:
        """Those that were scored."""
        return [d for d in DOMAINS if any(d in result.figures for result in self.results)]

    def runs(self, cell: Cell) -> list[Result]:
        """One of each seed of a row."""
        return [result for result in self.results if result.cell == cell]

    def values(self, cell: Cell, domain: Domain, name: str) -> list[float]:
        """One figure of each seed of a row that has it."""
        found = (result.figure(domain, name) for result in self.runs(cell))
        return [value for value in found if value is not None]
