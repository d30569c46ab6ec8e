"""What a model says of each image of an export, beside what the export says of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_io.archive import read_lung_mask
from dicom_io.errors import CheckpointError
from dicom_io.pixels import map_on_source
from model.checkpoint import learnt_tasks
from model.image_table import TABLE_SIDE, ImageRecord, ImageTable, lungs_on_table
from model.metrics import MaskScores, score_mask
from model.predictor import Prediction, Predictor
from model.shortcuts import ShortcutScores

BATCH = 16


@dataclass(frozen=True)
class Scored:
    """One image with what the model said of it.

    Attributes:
        row: of the table.
        record: the image; its label is None where it may not be scored.
        probability: calibrated, of pneumonia.
        mask: scores on the table's grid, whatever side the model reads, or None without a reference
            mask.
        full_size_mask: scores at the image's own size, or None.
        shortcut: score by trivial features alone, or None where nothing could be fitted.
        is_refused: whether the model's gate takes the image for no film of its kind.
    """

    row: int
    record: ImageRecord
    probability: float
    mask: MaskScores | None
    full_size_mask: MaskScores | None
    shortcut: float | None
    is_refused: bool


def score_images(
    table: ImageTable,
    records: Sequence[ImageRecord],
    rows: Sequence[int],
    predictor: Predictor,
    full_size: bool,
    shortcuts: ShortcutScores | None,
) -> Iterator[Scored]:
    """Predict in batches and compare each mask with its reference.

    Args:
        table: images and masks.
        records: of the whole table, without labels that may not be scored.
        rows: which images.
        predictor: the model.
        full_size: also score masks at the size of their images, which reads every SEG again.
        shortcuts: what trivial features say of them.

    Raises:
        CheckpointError: the model reads finer images than the table holds.
    """
    side = predictor.card.input_side
    if side > TABLE_SIDE:
        raise CheckpointError(
            f"the model reads {side} px, the preprocessed exports hold {TABLE_SIDE} px"
        )
    segments = learnt_tasks(predictor.card).segment
    for start in range(0, len(rows), BATCH):
        batch = list(rows[start : start + BATCH])
        predictions = predictor.predict_batch(table.images_at(batch, side))
        for row, prediction in zip(batch, predictions, strict=True):
            record = records[row]
            mask = full_size_mask = None
            if record.has_mask and segments:
                predicted_hw = lungs_on_table(prediction.lung_probability_hw)
                mask = score_mask(predicted_hw, table.masks[row] > 0, record.grid_spacing_mm)
                if full_size:
                    full_size_mask = _score_at_full_size(record, prediction)
            shortcut = shortcuts.of_row.get(row) if shortcuts else None
            yield Scored(
                row,
                record,
                prediction.probability,
                mask,
                full_size_mask,
                shortcut,
                prediction.is_unlike_training,
            )


def _score_at_full_size(record: ImageRecord, prediction: Prediction) -> MaskScores:
    """Score the mask as the node delivers it: on the image's own pixel grid."""
    on_source = map_on_source(prediction.lung_probability_hw, record.rows, record.columns)
    return score_mask(on_source >= 0.5, _reference_mask(record), record.pixel_spacing_mm)


def _reference_mask(record: ImageRecord) -> NDArray[np.bool_]:
    return read_lung_mask(tuple(map(Path, record.mask_paths)), record)
