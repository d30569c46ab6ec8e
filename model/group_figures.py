"""The figures of a group of scored images: of all of them, of a source, a view, a sex, an age band.

The verdict's stand beside the two constant answers and a regression on trivial features.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from model.config import Tasks
from model.image_scores import Scored
from model.image_table import ImageRecord
from model.metrics import MaskScores, auroc, score_classification
from model.validation import mean_mask_scores

# A figure over fewer images says more about chance than about the group.
SMALLEST_GROUP = 20


def age_band(record: ImageRecord) -> str:
    """The band of 20 years that a patient's age falls into, or empty."""
    if record.age_years is None:
        return ""
    start = int(record.age_years) // 20 * 20
    return f"{start} to {start + 19}"


GROUPINGS: dict[str, Callable[[ImageRecord], str]] = {
    "source": lambda record: record.source,
    "view": lambda record: record.view,
    "sex": lambda record: record.sex,
    "age": age_band,
}


def grouped_figures(
    scored: Sequence[Scored], tasks: Tasks, operating_point: float
) -> dict[str, Any]:
    """The figures of all images, and under ``by_view`` and the like those of each large group.

    Args:
        scored: the images.
        tasks: what the model learnt; its figures in anything else would be noise.
        operating_point: probability at and above which the verdict is pneumonia.
    """

    def figures(of: Sequence[Scored]) -> dict[str, Any]:
        return _mask_figures(of) | (_class_figures(of, operating_point) if tasks.classify else {})

    return figures(scored) | {
        f"by_{name}": _by_group(scored, group_of, figures) for name, group_of in GROUPINGS.items()
    }


def _by_group(
    scored: Sequence[Scored],
    group_of: Callable[[ImageRecord], str],
    figures: Callable[[Sequence[Scored]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """The same figures for each group of images that is large enough."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        groups[group_of(one.record)].append(one)
    return {
        name: _group_counts(members) | figures(_without_few_annotations(members))
        for name, members in sorted(groups.items())
        if name and len(members) >= SMALLEST_GROUP
    }


def _group_counts(members: Sequence[Scored]) -> dict[str, int]:
    masks = sum(one.mask is not None for one in members)
    return {"images": len(members), "masks": masks}


def _without_few_annotations(members: Sequence[Scored]) -> list[Scored]:
    """A large group may have but a few masks or labels; those few are no figure of the group."""
    masks = sum(one.mask is not None for one in members)
    labels = sum(one.record.class_index >= 0 for one in members)
    kept = list(members)
    if masks < SMALLEST_GROUP:
        kept = [replace(one, mask=None, full_size_mask=None) for one in kept]
    if labels < SMALLEST_GROUP:
        kept = [replace(one, record=replace(one.record, label=None)) for one in kept]
    return kept


def _mask_figures(scored: Sequence[Scored]) -> dict[str, float | None]:
    """Mean mask scores, on the table's grid and, with a suffix, at full size."""
    masks = [s.mask for s in scored if s.mask is not None]
    if not masks:
        return {}
    figures = _mean_scores(masks, suffix="")
    figures["empty_masks"] = mean_mask_scores(masks)["empty_masks"]
    full = [s.full_size_mask for s in scored if s.full_size_mask is not None]
    return figures | _mean_scores(full, suffix="_full_size") if full else figures


def _mean_scores(masks: Sequence[MaskScores], suffix: str) -> dict[str, float | None]:
    """Each figure's mean over the masks that have it, or None."""
    means = mean_mask_scores(masks)
    return {name + suffix: means.get(name) for name in MaskScores.__dataclass_fields__}


def _class_figures(scored: Sequence[Scored], operating_point: float) -> dict[str, Any]:
    """Figures of the verdict, with the constant answers and the shortcuts' AUROC beside them."""
    labelled = [s for s in scored if s.record.class_index >= 0]
    if not labelled:
        return {}
    labels = np.array([s.record.class_index for s in labelled])
    probabilities = np.array([s.probability for s in labelled])
    scores = score_classification(probabilities, labels, operating_point)
    figures: dict[str, Any] = asdict(scores)
    figures["labelled_images"] = figures.pop("images")
    figures["operating_point"] = operating_point
    shortcuts = np.array([s.shortcut for s in labelled if s.shortcut is not None])
    figures["shortcut_auroc"] = auroc(shortcuts, labels) if len(shortcuts) == len(labels) else None
    figures["accuracy_always_normal"] = float((labels == 0).mean())
    figures["accuracy_always_pneumonia"] = float((labels == 1).mean())
    return figures
