"""An evaluation as its reader sees it on a terminal: all images, then groups, then what to mind."""

from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

GROUP_FIGURES: Final = (
    "images",
    "masks",
    "dice",
    "auroc",
    "shortcut_auroc",
    "balanced_accuracy",
)
_SAID_ELSEWHERE: Final = ("split", "shortcuts_fitted_on")


def print_evaluation(report: dict[str, Any], groupings: Iterable[str], console: Console) -> None:
    """Print what ``model.evaluate.evaluate`` gives.

    Args:
        report: the figures.
        groupings: names of the groupings in it, e.g. ``view``.
        console: where it goes.
    """
    console.print(figure_table(report))
    groups = {
        f"{grouping}: {group}": figures
        for grouping in groupings
        for group, figures in report[f"by_{grouping}"].items()
    }
    if groups:
        console.print(group_table(groups))
    for source in report["one_class_sources_not_scored"]:
        console.print(
            f"labels of {source} are not scored: all its images are of one class, so that telling "
            "sources apart would pass for diagnosis",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def figure_table(report: dict[str, Any]) -> Table:
    """Every figure of all images that is a number, and trivial features beside them."""
    fitted_on = report["shortcuts_fitted_on"]
    table = Table(
        title=escape(f"{report['model']}, split {report['split'] or 'all'}"),
        caption=f"shortcut_auroc: a regression on trivial features, fitted on {fitted_on}"
        if fitted_on
        else None,
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    alone = {f"{name} alone, AUROC": v for name, v in report["shortcut_auroc_of"].items()}
    for name, value in (report | alone).items():
        if (isinstance(value, int | float) or value is None) and name not in _SAID_ELSEWHERE:
            table.add_row(name, _shown(value))
    return table


def group_table(groups: dict[str, dict[str, Any]]) -> Table:
    """The figures that tell groups apart; all others stand in the JSON object."""
    table = Table(title="groups that are large enough")
    table.add_column("group")
    for name in GROUP_FIGURES:
        table.add_column(name.replace("_", " "), justify="right")
    for group, figures in groups.items():
        table.add_row(escape(group), *(_shown(figures.get(name)) for name in GROUP_FIGURES))
    return table


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
