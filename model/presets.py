"""Whole configurations by name, and how they are changed: table model, TOML file, ``key=value``.

``PRESETS`` holds whole configurations; ``TABLE_MODELS`` the paper's models as five switches over
one trainer.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from dicom_io.errors import TrainingError
from model.config import Stage, Tasks, TrainingConfig, checked_config

TABLE_MODELS: dict[str, Tasks] = {
    name: Tasks(
        segment=segment,
        classify=classify,
        pseudo_labels=pseudo_labels,
        bridge=bridge,
        unlabelled_masks=unlabelled_masks,
    )
    for name, segment, classify, pseudo_labels, bridge, unlabelled_masks in (
        ("unet", True, False, False, False, False),
        ("enc", False, True, False, False, False),
        ("encssl", False, True, True, False, False),
        ("umtl", True, True, False, False, False),
        ("umtls", True, True, False, True, False),
        ("umtl-ssl", True, True, True, False, False),
        ("umtl-ssl-s", True, True, True, True, False),
        ("multimix", True, True, True, True, True),
    )
}

PAPER = TrainingConfig()
BEST = TrainingConfig(
    stages=(Stage(side=128, steps=2000), Stage(side=256, steps=400)),
    class_batch=12,
    mask_batch=12,
    unlabelled_batch=6,
    share_annotations=True,
    balance_classes=True,
    source_exponent=0.5,
    learning_rate=1.5e-3,
    schedule="cosine_by_stage",
    weight_decay=0.01,
    largest_gradient_norm=5.0,
    mask_weight=1.0,
    mask_cross_entropy=1.0,
    unlabelled_mask_weight=0.5,
    unlabelled_mask_term="consistency",
    augment_masks=True,
    strong_view="exposure",
    rotate=12.0,
    scale=0.15,
    pseudo_label_threshold=0.9,
    teacher_decay=0.995,
    encoder_norm="instance",
    residual=True,
    local_contrast=True,
    context=True,
    dropout=0.1,
    bridge_scale="per_image",
    bridge_pooling="area",
    average_mirrored=True,
    precision="bf16",
    validate_every=250,
)
PRESETS: dict[str, TrainingConfig] = {"paper": PAPER, "best": BEST}


def configure(
    preset: str,
    *,
    model: str | None = None,
    file: Path | None = None,
    overrides: tuple[str, ...] = (),
) -> TrainingConfig:
    """Build a run's configuration: preset, then table model, then TOML file, then overrides.

    Args:
        preset: a name of ``PRESETS``.
        model: a name of ``TABLE_MODELS``, or None to keep the preset's.
        file: a TOML file with keys of ``TrainingConfig``.
        overrides: ``key=value`` with the value in JSON, or a bare word; ``tasks.bridge=false`` and
            ``tasks={"bridge":false}`` both turn one switch and leave the others.

    Raises:
        TrainingError: a name, key or value is unknown or out of range; the message names it.
    """
    if preset not in PRESETS:
        raise TrainingError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    return changed(PRESETS[preset], model=model, file=file, overrides=overrides)


def changed(
    config: TrainingConfig,
    *,
    model: str | None = None,
    file: Path | None = None,
    overrides: tuple[str, ...] = (),
) -> TrainingConfig:
    """A configuration with other settings: table model, then TOML file, then overrides.

    Args:
        config: what the rest is taken from.
        model: see ``configure``.
        file: see ``configure``.
        overrides: see ``configure``.

    Raises:
        TrainingError: a name, key or value is unknown or out of range; the message names it.
    """
    values = config.model_dump()
    if model is not None:
        if model not in TABLE_MODELS:
            raise TrainingError(f"unknown model {model!r}; choose one of {', '.join(TABLE_MODELS)}")
        values["tasks"] = TABLE_MODELS[model].model_dump()
    if file is not None:
        for key, value in _read_toml(file).items():
            _put(values, key, value)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise TrainingError(f"--set {override!r} is not of the form key=value")
        _put(values, key.strip(), _parse(text.strip()))
    return checked_config(values)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value, or one switch of a group as ``tasks.bridge``; a group leaves out what stays."""
    group, _, switch = key.rpartition(".")
    if isinstance(values.get(group), dict):
        values[group] = values[group] | {switch: value}
    elif isinstance(values.get(key), dict) and isinstance(value, dict):
        values[key] = values[key] | value
    else:
        values[key] = value


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as cause:
        raise TrainingError(f"{file} cannot be read: {cause.strerror}") from cause
    except ValueError as cause:
        raise TrainingError(f"{file} is no TOML: {cause}") from cause


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
