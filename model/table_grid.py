"""The rows of the paper's table: models by label and mask budgets, and what the paper says of each.

``paper_results.csv`` transcribes the supplement's tables 3 and 4 (Haque et al., ISBI 2021) and the
AUROC of the authors' slides beside that of the supplement's figure 6, which contradicts it; where
they are silent a cell is empty.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicom_io.errors import TrainingError
from model.config import Tasks
from model.presets import TABLE_MODELS

Domain = Literal["in-domain", "cross-domain"]
DOMAINS: tuple[Domain, ...] = ("in-domain", "cross-domain")

_PAPER_RESULTS = Path(__file__).with_name("paper_results.csv")
ALL = "all"


@dataclass(frozen=True)
class Cell:
    """A row of the table.

    Attributes:
        model: a name of ``TABLE_MODELS``.
        labels: labelled images, None for all; None, too, where the model does not classify.
        masks: masks, None for all; None, too, where the model does not segment.
    """

    model: str
    labels: int | None
    masks: int | None

    @property
    def tasks(self) -> Tasks:
        """What the model learns."""
        return TABLE_MODELS[self.model]

    @property
    def budgets(self) -> tuple[str, str]:
        """Labels and masks as the table shows them; empty for a task that the model has not."""
        return (
            _shown(self.labels) if self.tasks.classify else "",
            _shown(self.masks) if self.tasks.segment else "",
        )

    @property
    def name(self) -> str:
        """For a folder: ``multimix-100-labels-10-masks``."""
        labels, masks = self.budgets
        parts = [
            self.model,
            f"{labels}-labels" if labels else "",
            f"{masks}-masks" if masks else "",
        ]
        return "-".join(part for part in parts if part)


def table_cells(
    models: Sequence[str], labels: Sequence[int | None], masks: Sequence[int | None]
) -> list[Cell]:
    """Every row that the budgets give, once, in the paper's order.

    A task's budget counts where the model has that task.

    Raises:
        TrainingError: a model is unknown.
    """
    unknown = [model for model in models if model not in TABLE_MODELS]
    if unknown:
        raise TrainingError(
            f"unknown model {', '.join(unknown)}; choose of {', '.join(TABLE_MODELS)}"
        )
    return [
        Cell(model, label_budget, mask_budget)
        for model, tasks in TABLE_MODELS.items()
        if model in models
        for label_budget in (dict.fromkeys(labels) if tasks.classify else [None])
        for mask_budget in (dict.fromkeys(masks) if tasks.segment else [None])
    ]


def parse_budget(text: str) -> int | None:
    """A budget from the command line: a number, or ``all``.

    Raises:
        TrainingError: it is neither.
    """
    if text == ALL:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise TrainingError(f"a budget is a number or {ALL!r}, not {text!r}")
    return int(text)


def paper_figures() -> dict[tuple[str, str, str, Domain], dict[str, float]]:
    """The paper's figures, by model, labels, masks (as ``Cell.budgets``) and domain."""
    with _PAPER_RESULTS.open(newline="") as file:
        return {
            (row.pop("model"), row.pop("labels"), row.pop("masks"), _domain(row.pop("domain"))): {
                name: float(value) for name, value in row.items() if value
            }
            for row in csv.DictReader(file)
        }


def _domain(text: str) -> Domain:
    return "in-domain" if text == "in-domain" else "cross-domain"


def _shown(budget: int | None) -> str:
    return ALL if budget is None else str(budget)
