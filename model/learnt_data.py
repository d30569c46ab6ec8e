"""What a run learns from, to the pixel, and whether exports still hold it."""

import hashlib
from pathlib import Path

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.image_table import ImageTable
from model.split_file import in_stored_order
from model.splits import Pools
from model.streams import make_streams


def learnt_rows(
    run: Path,
    table: ImageTable,
    pools: Pools,
    config: TrainingConfig,
    training_data_sha256: str,
    advice: str = "give the same --data",
) -> list[int]:
    """The rows that a run learnt from.

    Args:
        run: its folder.
        table: the exports that should be those of the run.
        pools: what the run uses each row for.
        config: of the run.
        training_data_sha256: as its state and the card of its model have it.
        advice: what to do where they are not.

    Raises:
        TrainingError: pixels, masks or labels of these rows are not those that were learnt from.
    """
    rows = make_streams(table.records, pools, config).rows
    if table.content_hash(in_stored_order(run, table.records, rows)) != training_data_sha256:
        raise TrainingError(
            "these are not the exports that the run was trained on: pixels, masks or labels differ"
            f"; {advice}"
        )
    return rows


def hash_of_learnt(table: ImageTable, pools: Pools, config: TrainingConfig) -> str:
    """SHA-256 over what a run learns from, each image for its use, and who is held out of it.

    The patients held out decide, too: they choose weights, calibration and operating point.
    """
    rows = [*make_streams(table.records, pools, config).rows, *pools.validation]
    digest = hashlib.sha256(table.content_hash(rows).encode())
    for pool in (pools.labelled, pools.masked, pools.unlabelled, pools.validation):
        digest.update(repr([table.records[row].sop_instance_uid for row in pool]).encode())
    return digest.hexdigest()
