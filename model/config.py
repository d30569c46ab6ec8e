"""Every hyperparameter of a training run, typed, in one place; stored with the run as JSON.

An unknown key or a value out of range is refused with the key's name. ``model.presets`` holds whole
configurations.
"""

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicom_io.errors import TrainingError
from model.blocks import Norm
from model.image_table import TABLE_SIDE
from model.network import BridgePooling, BridgeScale, NetworkShape

# Group norm has eight groups.
_Width = Annotated[int, Field(ge=8, multiple_of=8)]
Channels = tuple[_Width, _Width, _Width, _Width, _Width]


class _Frozen(BaseModel):
    # JSON has no infinity: a stored one would come back as nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tasks(_Frozen):
    """The five switches that make each row of the paper's table out of one trainer.

    Attributes:
        segment: learn from lung masks.
        classify: learn from class labels.
        pseudo_labels: learn classification from unlabelled images too.
        bridge: feed image and saliency into the decoder.
        unlabelled_masks: learn segmentation from images without masks too.
    """

    segment: bool = True
    classify: bool = True
    pseudo_labels: bool = True
    bridge: bool = True
    unlabelled_masks: bool = True

    @model_validator(mode="after")
    def _has_what_it_builds_on(self) -> "Tasks":
        if not (self.segment or self.classify):
            raise ValueError("segment and classify are both off: there is nothing to learn")
        if self.pseudo_labels and not self.classify:
            raise ValueError("pseudo_labels needs classify")
        if self.unlabelled_masks and not self.segment:
            raise ValueError("unlabelled_masks needs segment")
        return self


class Stage(_Frozen):
    """A stretch of training at one image size.

    Attributes:
        side: rows and columns of the network's input, in pixels; divisible by 16 and no larger
            than the preprocessed images, of which nothing finer could be learnt.
        steps: optimiser steps.
        restores: learn to restore damaged films, for which no label is needed, instead of the
            run's tasks: a self-supervised warm-up.
    """

    side: int = Field(ge=32, le=TABLE_SIDE, multiple_of=16)
    steps: int = Field(ge=1)
    restores: bool = False


class TrainingConfig(_Frozen):
    """One training run.

    Attributes:
        tasks: which losses the run has.
        labels: how many labelled images the classifier may use; None for all.
        masks: how many masks the segmentation may use; None for all.
        stages: image sizes and steps, in order.
        class_batch: labelled images for the classifier in each step.
        mask_batch: images with masks in each step.
        unlabelled_batch: unlabelled images in each step.
        share_annotations: let the label of an image that was drawn for its mask count, too.
        balance_classes: draw both classes equally often.
        source_exponent: sources are drawn in proportion to (their images) ** exponent; 1 as they
            come, 0 each source equally often.
        learning_rate: Adam's, at its highest.
        schedule: ``step`` is x0.1 after each ``step_share`` of the run (the paper's every 8
            epochs), ``cosine`` warms up and falls to zero, ``cosine_by_stage`` does so anew in each
            stage.
        step_share: share of the run between two steps of the ``step`` schedule.
        weight_decay: decoupled (AdamW); 0 is the paper's Adam.
        largest_gradient_norm: longer gradients are shortened to it; None leaves them (the paper).
        pseudo_label_weight: lambda of equation 1.
        pseudo_label_threshold: t of equation 1, or ``adaptive`` (``model.thresholds``).
        mask_weight: alpha of equation 2.
        mask_cross_entropy: weight of a per-pixel cross-entropy beside the Dice loss.
        unlabelled_mask_weight: beta of equation 2.
        unlabelled_mask_term: ``paired_kl`` is the paper's, ``prior_kl`` compares mean lung maps,
            both with a batch of other images that nothing else is learnt from; ``consistency``
            compares two views of the same image.
        unlabelled_mask_threshold: confidence of a pixel that counts in ``consistency``.
        augment_masks: move and re-expose the images with masks too (the paper leaves them alone).
        strong_view: ``rand_augment`` is the paper's; ``exposure`` is gamma, contrast, noise and
            cut-out; ``patchwork`` the same with a part of another film in place of the cut-out.
        rand_augment_operations: operations that each ``rand_augment`` view goes through.
        exposure: how far ``exposure`` and ``patchwork`` and images with masks are re-exposed,
            relative to ``augment.vary_intensity``'s ranges.
        labelled_exposure: how far labelled images are, relative to that.
        blur: widest blur of all these, a standard deviation as a share of the side.
        cut_out: largest side of the rectangle that ``exposure`` greys out, as a share of the side.
        flip: probability that a view is a mirror image.
        shift: largest shift of every view, as a share of the side.
        rotate: largest rotation of every view, degrees; 0 in the paper's weak view.
        scale: largest relative change of size of every view.
        shear: largest shear of every view, as a share of the side.
        bend: largest smooth displacement within every view, as a share of the side.
        teacher_decay: of the exponential moving average that gives pseudo-labels and is served;
            0 uses the student itself.
        channels: see ``NetworkShape``.
        encoder_norm: see ``NetworkShape``.
        residual: see ``NetworkShape``.
        local_contrast: see ``NetworkShape``.
        context: see ``NetworkShape``.
        dropout: see ``NetworkShape``.
        bridge_scale: see ``NetworkShape``.
        bridge_pooling: see ``NetworkShape``.
        average_mirrored: serve the mean of the answers to each film and to its mirror image.
        precision: ``bf16`` runs convolutions under autocast.
        validation_share: share of the training patients held out to choose checkpoint,
            calibration and operating point.
        validate_every: steps between two validations.
        patience: validations of the last stage without a better score after which the run ends;
            None runs all steps.
        minutes: time limit of the run, all its starts together, by which ``schedule`` ends, too;
            None for none.
        seed: decides the split, the budgets, every draw and every view.
    """

    tasks: Tasks = Tasks()
    labels: int | None = Field(default=None, ge=2)
    masks: int | None = Field(default=None, ge=1)
    stages: tuple[Stage, ...] = Field(default=(Stage(side=256, steps=2000),), min_length=1)
    class_batch: int = Field(default=10, ge=1)
    mask_batch: int = Field(default=10, ge=1)
    unlabelled_batch: int = Field(default=10, ge=1)
    share_annotations: bool = False
    balance_classes: bool = False
    source_exponent: float = Field(default=1.0, ge=0.0, le=1.0)
    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["step", "cosine", "cosine_by_stage"] = "step"
    step_share: float = Field(default=0.33, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    largest_gradient_norm: float | None = Field(default=None, gt=0)
    pseudo_label_weight: float = Field(default=0.25, ge=0)
    pseudo_label_threshold: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = 0.7
    mask_weight: float = Field(default=5.0, ge=0)
    mask_cross_entropy: float = Field(default=0.0, ge=0)
    unlabelled_mask_weight: float = Field(default=0.01, ge=0)
    unlabelled_mask_term: Literal["paired_kl", "prior_kl", "consistency"] = "paired_kl"
    unlabelled_mask_threshold: float = Field(default=0.95, ge=0.5, le=1)
    augment_masks: bool = False
    strong_view: Literal["rand_augment", "exposure", "patchwork"] = "rand_augment"
    rand_augment_operations: int = Field(default=2, ge=0)
    exposure: float = Field(default=1.0, ge=0, le=2)
    labelled_exposure: float = Field(default=0.5, ge=0, le=1)
    blur: float = Field(default=0.0, ge=0, le=0.03)
    cut_out: float = Field(default=0.3, ge=0, le=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    shift: float = Field(default=0.125, ge=0, le=0.5)
    rotate: float = Field(default=0.0, ge=0, le=45)
    scale: float = Field(default=0.0, ge=0, lt=0.5)
    shear: float = Field(default=0.0, ge=0, le=0.5)
    bend: float = Field(default=0.0, ge=0, le=0.1)
    teacher_decay: float = Field(default=0.0, ge=0, lt=1)
    channels: Channels = NetworkShape.channels
    encoder_norm: Norm = "instance"
    residual: bool = False
    local_contrast: bool = False
    context: bool = False
    dropout: float = Field(default=0.25, ge=0, le=0.99)
    bridge_scale: BridgeScale = "raw"
    bridge_pooling: BridgePooling = "bilinear"
    average_mirrored: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    validate_every: int = Field(default=200, ge=1)
    patience: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _warm_up_comes_first(self) -> "TrainingConfig":
        restores = [stage.restores for stage in self.stages]
        if restores != sorted(restores, reverse=True) or all(restores):
            raise ValueError("stages that restore come first, and one that does not after them")
        return self

    @model_validator(mode="after")
    def _views_fit_together(self) -> "TrainingConfig":
        if self.unlabelled_mask_term == "consistency" and self.strong_view == "rand_augment":
            raise ValueError(
                "unlabelled_mask_term = consistency needs strong_view = exposure or patchwork: "
                "rand_augment moves the strong view away from the weak one"
            )
        return self

    @model_validator(mode="after")
    def _context_divides_into_groups(self) -> "TrainingConfig":
        # Its bottlenecks have half as many channels, in eight groups.
        if self.context and self.channels[-1] % 16:
            raise ValueError(
                f"context needs a last width of channels that 16 divides, not {self.channels[-1]}"
            )
        return self

    @property
    def compares_with_other_films(self) -> bool:
        """Whether masks are compared with those of a batch of unlabelled images of their own."""
        return self.tasks.unlabelled_masks and self.unlabelled_mask_term != "consistency"

    @property
    def network_shape(self) -> NetworkShape:
        """The network that this configuration trains."""
        return NetworkShape(
            channels=self.channels,
            dropout=self.dropout,
            encoder_norm=self.encoder_norm,
            residual=self.residual,
            local_contrast=self.local_contrast,
            context=self.context,
            bridge=self.tasks.bridge,
            bridge_scale=self.bridge_scale,
            bridge_pooling=self.bridge_pooling,
        )

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def warm_up_steps(self) -> int:
        """Optimiser steps of the stages that restore; they come first."""
        return sum(stage.steps for stage in self.stages if stage.restores)

    def side_at(self, step: int) -> int:
        """Image side in pixels at a step, counted from 0."""
        return self.stage_at(step)[1].side

    def stage_at(self, step: int) -> tuple[int, Stage]:
        """The first step of the stage that a step, counted from 0, belongs to, and the stage."""
        first = 0
        for stage in self.stages[:-1]:
            if step < first + stage.steps:
                return first, stage
            first += stage.steps
        return first, self.stages[-1]


_SETTINGS_OF: dict[str, type[BaseModel]] = {"tasks": Tasks, "stages": Stage}


def checked_config(values: dict[str, Any]) -> TrainingConfig:
    """A configuration from plain values.

    Raises:
        TrainingError: a key is unknown or a value out of range; the message names it.
    """
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as cause:
        # A misspelt name goes before the one that is missing because of it.
        errors = cause.errors()
        first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
        if first["type"] == "extra_forbidden":
            raise TrainingError(_unknown_setting(".".join(map(str, first["loc"])))) from cause
        name = _name_of(first["loc"])
        where = f"training setting {name}" if name else "training settings"
        # Of a setting that may be a number or a word, what is wrong with it as either.
        wrong = [error["msg"] for error in errors if _name_of(error["loc"]) == name]
        raise TrainingError(f"{where}: {', or '.join(wrong)}") from cause


def _name_of(location: tuple[int | str, ...]) -> str:
    """A setting's name, without the kinds of value that were tried."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part.isidentifier())


def _unknown_setting(name: str) -> str:
    group, _, key = name.rpartition(".")
    known = list(_SETTINGS_OF.get(group.partition(".")[0], TrainingConfig).model_fields)
    near = get_close_matches(key, known, n=1)
    meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown training setting {name}; {meant}"
