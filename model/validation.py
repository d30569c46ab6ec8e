"""How a network does on the held-out patients of its own training run."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import Tasks
from model.image_table import ImageTable, lungs_on_table
from model.metrics import MaskScores, score_classification, score_mask
from model.mirroring import MirrorAveraged
from model.network import MultiMixNetwork
from model.objective import wanted_masks
from model.predictor import calibrated, margins
from model.splits import Pools

BATCH = 32


@torch.no_grad()
def validate(
    network: MultiMixNetwork, table: ImageTable, pools: Pools, tasks: Tasks, side: int
) -> dict[str, float]:
    """Score the held-out patients in the tasks that the run learns.

    Probabilities are uncalibrated here, with 0.5 as operating point, and masks are taken as the
    network gives them. They are scored on the table's grid, so that the scores of a run's image
    sides compare.

    Args:
        network: left in eval mode.
        table: images, masks and labels.
        pools: which rows are held out, and their classes.
        tasks: what the network learns; the figures of another task would be noise.
        side: image side in pixels.

    Returns:
        The figures of ``model.metrics`` that masks and labels allow, and ``score``, the mean of
        Dice and AUROC (0 without either), which decides which model is kept.
    """
    network.eval()
    figures: dict[str, float] = {}
    if tasks.segment:
        rows = [row for row in pools.validation if table.records[row].has_mask]
        figures |= mean_mask_scores(list(_mask_scores(network, table, rows, side)))
    if tasks.classify:
        rows = [row for row in pools.validation if pools.classes[row] >= 0]
        figures |= class_scores(network, table, pools, rows, side)
    deciding = [figures[name] for name in ("dice", "auroc") if name in figures]
    figures["score"] = float(np.mean(deciding)) if deciding else 0.0
    return figures


def _mask_scores(
    network: MultiMixNetwork, table: ImageTable, rows: Sequence[int], side: int
) -> Iterator[MaskScores]:
    for batch, images in _batches(network, table, rows, side):
        lungs = torch.sigmoid(wanted_masks(network(images)).float()).cpu().numpy()
        for row, lungs_1hw in zip(batch, lungs, strict=True):
            reference_hw = table.masks[row] > 0
            spacing_mm = table.records[row].grid_spacing_mm
            yield score_mask(lungs_on_table(lungs_1hw[0]), reference_hw, spacing_mm)


def mean_mask_scores(scores: Sequence[MaskScores]) -> dict[str, float]:
    """Each figure averaged over the masks that have it, and how many are empty.

    An empty mask overlaps with nothing and has no distance from anything, so a network that often
    finds no lung looks good by distance; ``empty_masks`` says how often.
    """
    figures: dict[str, float] = {}
    for name in MaskScores.__dataclass_fields__:
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        if values:
            figures[name] = float(np.mean(values))
    if scores:
        figures["empty_masks"] = float(sum(score.hausdorff_px is None for score in scores))
    return figures


def class_scores(
    network: MultiMixNetwork, table: ImageTable, pools: Pools, rows: Sequence[int], side: int
) -> dict[str, float]:
    """The classifier's figures on some rows; empty without any."""
    if not rows:
        return {}
    found = pneumonia_margins(network, table, rows, side)
    classes = np.array([pools.classes[row] for row in rows])
    scores = asdict(score_classification(calibrated(found, 1.0, 0.0), classes, 0.5))
    return {k: float(v) for k, v in scores.items() if v is not None and k != "images"}


@torch.no_grad()
def pneumonia_margins(
    network: MultiMixNetwork | MirrorAveraged, table: ImageTable, rows: Sequence[int], side: int
) -> NDArray[np.float64]:
    """Pneumonia logit minus normal logit of some rows, (rows,); leaves eval mode on."""
    network.eval()
    batches = _batches(network, table, rows, side)
    return np.concatenate([margins(network(images, masks=False).logits) for _, images in batches])


def _batches(
    network: MultiMixNetwork | MirrorAveraged, table: ImageTable, rows: Sequence[int], side: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Some of the rows, and their images on the network's device."""
    device = next(network.parameters()).device
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        yield batch, table.tensors(batch, side)[0].to(device)
