"""A training run from its first step to its last: preparation, the loop, one validation."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from dicom_io.errors import TrainingError
from model.checkpoint import CARD_FILE, ModelCard, read_card, require_numbers
from model.config import TrainingConfig
from model.copies import warn_of_copies
from model.distributed import (
    ALONE,
    Ranks,
    largest_of,
    require_divisible,
    require_same_data,
)
from model.division_remarks import tell_division
from model.image_table import ImageTable
from model.learner import Learner, new_learner, take_step
from model.problems import write_problems
from model.progress import step_reports
from model.run_end import how_it_ended, is_finished, time_gone
from model.run_folder import (
    drop_rows_after,
    first_card,
    keep_model,
    record_validation,
    scalars,
    write_config,
)
from model.run_state import TrainingState, read_state, write_state
from model.shortcuts import warn_of_shortcuts
from model.split_file import require_same_splits, write_splits
from model.splits import Pools, divide_as_configured, require_annotations, require_score
from model.start_from import begin_with, noted, require_begun_with, warn_of_other_held_out
from model.stopping import StopReason, stop_requests
from model.streams import Streams, make_streams
from model.validation import validate
from model.views import views_of_step


@dataclass(frozen=True)
class Run:
    """What stays the same from a run's first step to its last.

    Attributes:
        table: images, masks and labels.
        pools: which of its rows are for what.
        streams: what each step draws from.
        config: every hyperparameter.
        out: the run's folder.
        card: what is known of the model before training.
        device: where the network lives.
        console: where the run says how it goes.
        ranks: the processes that train together.
    """

    table: ImageTable
    pools: Pools
    streams: Streams
    config: TrainingConfig
    out: Path
    card: ModelCard
    device: torch.device
    console: Console
    ranks: Ranks

    @property
    def held_out_sha256(self) -> str:
        """Of the pixels, masks and labels that the model is chosen by."""
        return self.table.content_hash(self.pools.validation)


def train(
    table: ImageTable,
    config: TrainingConfig,
    out: Path,
    *,
    version: str,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "cpu",
    minutes: float | None = None,
    console: Console | None = None,
    ranks: Ranks = ALONE,
) -> ModelCard | None:
    """Train one model and write it to ``out/model``.

    Args:
        table: the images, masks and labels.
        config: every hyperparameter.
        out: the run's folder.
        version: of the model, for its card.
        resume: go on from ``out/state`` instead of starting anew.
        start_from: a model whose weights the run begins with; its card is kept on the new one.
            A resumed run has long begun; it may be given again, but no other.
        device: torch device.
        minutes: stop this start after this long; None for no limit. A resumed run goes on from
            there as if nothing had been; ``config.minutes`` ends it for good.
        console: where progress goes; standard output if left out.
        ranks: the processes that train together; each of them calls this.

    Returns:
        The card of the best model; None where the run was stopped before its first validation.

    Raises:
        TrainingError: nothing to train on, nothing to resume, or the loss is no number any more.
        CheckpointError: the weights are none any more; the state saved last is from before.
    """
    run = prepare(table, config, out, version, torch.device(device), console or Console(), ranks)
    learner = new_learner(config, run.device)
    if resume:
        state = resumed(run, learner)
        if start_from is not None:
            require_begun_with(start_from, state.began_with, out)
    else:
        began_with = {} if start_from is None else begin_with(learner, start_from)
        warn_of_other_held_out(config, began_with, run.console)
        state = begun(run, began_with)
    if state.began_with:
        run = replace(run, card=noted(run.card, state.began_with))
    started = time.monotonic() - state.seconds
    with (
        stop_requests(minutes) as own_stop_reason,
        scalars(out, state.step) if ranks.is_first else nullcontext() as writer,
        step_reports(
            run.console,
            total=config.total_steps,
            done=state.step,
            images_per_step=run.streams.images_per_step,
        ) as report,
    ):
        while not is_finished(config, state):
            report.begin_step()
            views = views_of_step(table, run.pools, run.streams, config, state.step, run.device)
            gone = time_gone(config, state)
            taken = take_step(learner, views, config, state.step, ranks, gone)
            report(sum(taken.losses.values()), learner.learning_rate)
            seconds = largest_of(time.monotonic() - started, ranks, run.device)
            state = state.after_step(taken.losses | taken.watched, seconds)

            stop = common_stop_reason(own_stop_reason(), run)
            is_due = (
                state.step % config.validate_every == 0
                or state.step == config.warm_up_steps
                or is_finished(config, state)
            )
            if is_due or stop is StopReason.TIME:
                state = validate_and_keep(run, learner, state, writer, is_due=is_due)
            if (is_due or stop is not None) and ranks.is_first:
                write_state(out / "state", state, learner)
            if stop is not None:
                run.console.print(f"{stop.value}, at step {state.step}; --resume goes on from here")
                break
        else:
            ended = f"{how_it_ended(config, state)}; the model is in {out / 'model'}"
            run.console.print(ended, markup=False, soft_wrap=True)
    return read_card(out / "model") if (out / "model" / CARD_FILE).exists() else None


def prepare(
    table: ImageTable,
    config: TrainingConfig,
    out: Path,
    version: str,
    device: torch.device,
    console: Console,
    ranks: Ranks,
) -> Run:
    """Decide which images the run learns from, and say so.

    Raises:
        TrainingError: a task has nothing to learn from, a process nothing to do, or the processes
            see different images.
    """
    require_divisible(config, ranks)
    pools = divide_as_configured(table.records, config)
    require_annotations(pools, config.tasks)
    require_score(table.records, pools, config)
    streams = make_streams(table.records, pools, config)
    card = first_card(version, table, streams.rows, config)
    require_same_data(card.training_data_sha256, ranks, device)
    tell_division(table.records, pools, config.tasks, console)
    if ranks.is_first:
        elsewhere = set(range(len(table.records))) - {*streams.rows, *pools.unlabelled}
        warn_of_copies(table, streams.rows, sorted(elsewhere), console)
        if config.tasks.classify:
            warn_of_shortcuts(table, pools, console)
    return Run(table, pools, streams, config, out, card, device, console, ranks)


def begun(run: Run, began_with: dict[str, Any]) -> TrainingState:
    """Start the run's folder.

    Args:
        run: the new run.
        began_with: from ``begin_with``, or empty.

    Raises:
        TrainingError: the folder holds a run already.
    """
    if run.ranks.is_first:
        write_config(run.out, run.config)
        write_splits(run.out, run.table.records, run.pools)
        write_problems(run.out, run.table.problems)
    return TrainingState(
        training_data_sha256=run.card.training_data_sha256,
        held_out_sha256=run.held_out_sha256,
        began_with=began_with,
        version=run.card.version,
    )


def resumed(run: Run, learner: Learner) -> TrainingState:
    """Restore the learner, and forget what was recorded after its state was saved.

    Raises:
        TrainingError: there is no state, it is damaged, or the training data has changed.
    """
    state = read_state(run.out / "state", learner)
    if state.training_data_sha256 not in ("", run.card.training_data_sha256):
        raise TrainingError(
            f"the training data is not what the run in {run.out} began with, or an earlier version "
            "that read films in another order began it; start another run"
        )
    require_same_splits(run.out, run.table.records, run.pools)
    if state.held_out_sha256 not in ("", run.held_out_sha256):
        raise TrainingError(
            f"pixels, masks or labels of the films held out of the run in {run.out} have changed, "
            "so what it scores from here on would not compare; start another run"
        )
    if run.ranks.is_first:
        drop_rows_after(run.out / "metrics.csv", state.step)
        write_problems(run.out, run.table.problems)
    return replace(state, version=run.card.version)


def common_stop_reason(own: StopReason | None, run: Run) -> StopReason | None:
    """Why all processes end after this step: a reason of any of them."""
    reasons = list(StopReason)
    found = largest_of(-1 if own is None else reasons.index(own), run.ranks, run.device)
    return None if found < 0 else reasons[int(found)]


def validate_and_keep(
    run: Run, learner: Learner, state: TrainingState, writer: SummaryWriter | None, *, is_due: bool
) -> TrainingState:
    """Score the teacher on the held-out patients, record it, and keep it if it is the best.

    Only the first process, which has the writer, does; the others wait for its score. Where it is
    not due, but asked for by a time limit, a run that is resumed goes on as if it had not been,
    but for a better model, which is kept.
    """
    side = run.config.side_at(state.step - 1)
    score = -math.inf
    if writer is not None:
        score = _score_and_keep(run, learner, state, writer, side)
    score = largest_of(score, run.ranks, run.device)
    return state.after_validation(score, side) if is_due else state.after_extra_validation(score)


def _score_and_keep(
    run: Run, learner: Learner, state: TrainingState, writer: SummaryWriter, side: int
) -> float:
    require_numbers(learner.teacher)
    warms_up = state.step <= run.config.warm_up_steps
    figures = (
        {} if warms_up else validate(learner.teacher, run.table, run.pools, run.config.tasks, side)
    )
    progress = {
        "seconds": state.seconds,
        "side": side,
        "learning_rate": learner.learning_rate,
    } | {f"mean_{name}": value for name, value in state.means.items()}
    row = record_validation(run.out, writer, state.step, progress, figures)
    run.console.print(
        "  ".join(f"{name} {value:.5g}" for name, value in row.items()), soft_wrap=True
    )
    if warms_up:
        return -math.inf
    if state.is_best(figures["score"]):
        keep_model(run.out, learner.teacher, run.table, run.pools, run.card, figures, side)
    return figures["score"]
