"""When a training run is over for good: all steps are done, or its time or patience is."""

from model.config import TrainingConfig
from model.run_state import TrainingState


def is_finished(config: TrainingConfig, state: TrainingState) -> bool:
    """Whether there is nothing left to do: all steps are done, or time or patience is over."""
    return (
        state.step >= config.total_steps
        or time_gone(config, state) >= 1
        or ran_out_of_patience(config, state)
    )


def time_gone(config: TrainingConfig, state: TrainingState) -> float:
    """Share of the run's time limit that is over; 0 where it has none."""
    return 0.0 if config.minutes is None else state.seconds / (60 * config.minutes)


def how_it_ended(config: TrainingConfig, state: TrainingState) -> str:
    """What the user of a finished run reads."""
    if state.step >= config.total_steps:
        return f"finished all {config.total_steps} steps"
    if time_gone(config, state) >= 1:
        return f"finished at step {state.step}, after the run's {config.minutes:g} minutes"
    return (
        f"finished at step {state.step}, no better for {state.validations_since_gain} validations"
    )


def ran_out_of_patience(config: TrainingConfig, state: TrainingState) -> bool:
    """Whether the last stage has gone its configured number of validations without a gain."""
    return (
        config.patience is not None
        and state.step > config.total_steps - config.stages[-1].steps
        and state.validations_since_gain >= config.patience
    )
