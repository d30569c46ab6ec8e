"""What a training run shows while it goes: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

STEPS_PER_LINE = 20
# Of an exponential mean: the figures shown follow the last few dozen steps.
SMOOTHING = 0.95

StepReport = Callable[[float, float], None]


@contextmanager
def step_reports(
    console: Console, *, total: int, done: int, images_per_step: int
) -> Iterator[StepReport]:
    """Give a function to call after each step with its loss and learning rate.

    Args:
        console: a terminal gets a bar, anything else a line each ``STEPS_PER_LINE`` steps.
        total: steps of the run.
        done: steps done before.
        images_per_step: for the rate.
    """
    with _bar(console) as progress:
        task = progress.add_task("training", total=total, completed=done, figures="")
        step, mean_loss, mean_seconds = done, None, None
        before = time.monotonic()

        def report(loss: float, learning_rate: float) -> None:
            nonlocal step, mean_loss, mean_seconds, before
            now = time.monotonic()
            mean_loss = _smoothed(mean_loss, loss)
            mean_seconds = _smoothed(mean_seconds, now - before)
            step, before = step + 1, now
            figures = (
                f"loss {mean_loss:.3f}  lr {learning_rate:.2g}  "
                f"{images_per_step / max(mean_seconds, 1e-9):.1f} images/s"
            )
            progress.update(task, completed=step, figures=figures)
            if not console.is_terminal and (step % STEPS_PER_LINE == 0 or step == total):
                console.print(f"step {step}/{total}  {figures}", soft_wrap=True, highlight=False)

        yield report


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _smoothed(mean: float | None, value: float) -> float:
    return value if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * value
