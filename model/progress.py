"""What a training run shows while it goes: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

STEPS_PER_LINE = 20
# Of an exponential mean: the figures shown follow the last few dozen steps.
SMOOTHING = 0.95


class StepReport:
    """Called after each step with its loss and learning rate; shows them, and images a second.

    Args:
        show: gets the number of the step, and its figures as text.
        done: steps done before.
        images_per_step: for the rate.
    """

    def __init__(self, show: Callable[[int, str], None], done: int, images_per_step: int) -> None:
        self._show = show
        self._step = done
        self._images_per_step = images_per_step
        self._mean_loss: float | None = None
        self._mean_seconds: float | None = None
        self._began = time.monotonic()

    def begin_step(self) -> None:
        """Start the clock; what lay between, as a validation, is not the step's time."""
        self._began = time.monotonic()

    def __call__(self, loss: float, learning_rate: float) -> None:
        """Count the step that was begun last, and show how it went."""
        self._step += 1
        self._mean_loss = _smoothed(self._mean_loss, loss)
        self._mean_seconds = _smoothed(self._mean_seconds, time.monotonic() - self._began)
        rate = self._images_per_step / max(self._mean_seconds, 1e-9)
        figures = f"loss {self._mean_loss:.3f}  lr {learning_rate:.2g}  {rate:.1f} images/s"
        self._show(self._step, figures)


@contextmanager
def step_reports(
    console: Console, *, total: int, done: int, images_per_step: int
) -> Iterator[StepReport]:
    """Give what to call before and after each step.

    Args:
        console: a terminal gets a bar, anything else a line each ``STEPS_PER_LINE`` steps.
        total: steps of the run.
        done: steps done before.
        images_per_step: for the rate.
    """
    with _bar(console) as progress:
        task = progress.add_task("training", total=total, completed=done, figures="")

        def show(step: int, figures: str) -> None:
            progress.update(task, completed=step, figures=figures)
            if not console.is_terminal and (step % STEPS_PER_LINE == 0 or step == total):
                console.print(f"step {step}/{total}  {figures}", soft_wrap=True, highlight=False)

        yield StepReport(show, done, images_per_step)


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
