"""The demonstration's outcome for people: a table, where its files are, what is wrong."""

from rich.console import Console
from rich.table import Table

from worker.demo_outcomes import Row


def print_table(rows: list[Row], console: Console) -> None:
    """The table, where its files are, and whether everything arrived."""
    table = Table(title="Research use only. Not for diagnosis.")
    for name in ("study", "verdict", "prob.", "lungs %", "cm2", "seconds"):
        table.add_column(
            name, justify="left" if name in ("study", "verdict") else "right", overflow="fold"
        )
    for row in rows:
        state = f"{row.state}: " if row.state in ("rejected", "failed") else ""
        verdict = row.verdict.removeprefix(state)
        table.add_row(
            row.study,
            f"{state}{verdict}",
            *(
                _figure(value, digits)
                for value, digits in (
                    (row.probability, 2),
                    (row.lung_area_percent, 1),
                    (row.lung_area_cm2, 0),
                    (row.seconds, 1),
                )
            ),
        )
    console.print(table)
    for row in rows:
        for path in (*row.results, *row.overlays):
            console.print(path, highlight=False, soft_wrap=True)
    complaints = [f"{row.study}: {row.complaint}" for row in rows if row.complaint]
    for complaint in complaints:
        console.print(f"[red]{complaint}[/red]", highlight=False)
    if not complaints:
        console.print(f"{len(rows)} studies, every expected object arrived")


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
