"""Whether exports hold, to the pixel, what a run learnt from."""

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.image_table import ImageTable
from model.splits import Pools
from model.streams import make_streams


def learnt_rows(
    table: ImageTable,
    pools: Pools,
    config: TrainingConfig,
    training_data_sha256: str,
    advice: str = "give the same --data",
) -> list[int]:
    """The rows that a run learnt from.

    Args:
        table: the exports that should be those of the run.
        pools: what the run uses each row for.
        config: of the run.
        training_data_sha256: as its state and the card of its model have it.
        advice: what to do where they are not.

    Raises:
        TrainingError: pixels, masks or labels of these rows are not those that were learnt from.
    """
    rows = make_streams(table.records, pools, config).rows
    if table.content_hash(rows) != training_data_sha256:
        raise TrainingError(
            "these are not the exports that the run was trained on: pixels, masks or labels differ"
            f"; {advice}"
        )
    return rows
