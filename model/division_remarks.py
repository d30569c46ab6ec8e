"""What the start of a run says of the division of its films, and what it warns of."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console

from model.config import Tasks
from model.image_table import ImageRecord
from model.network import CLASSES
from model.splits import Pools, one_class_sources, training_rows_kept_away

UNNAMED: Final = "an unnamed source"


def tell_division(
    records: Sequence[ImageRecord], pools: Pools, tasks: Tasks, console: Console
) -> None:
    """Say how many films are for what, which labels and films do not count, and what is lacking.

    Args:
        records: all rows of the table.
        pools: what the run uses them for.
        tasks: what the run learns.
        console: where it goes.
    """
    labelled = sum(pools.classes[row] >= 0 for row in pools.validation)
    masked = sum(records[row].has_mask for row in pools.validation)
    console.print(
        f"{len(pools.labelled)} labelled, {len(pools.masked)} with masks, "
        f"{len(pools.unlabelled)} to learn from unlabelled, {len(pools.validation)} held out "
        f"({labelled} labelled, {masked} with masks)",
        soft_wrap=True,
    )
    for warning in _warnings(records, pools, tasks):
        # Without markup: an institution may be called anything.
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def _warnings(records: Sequence[ImageRecord], pools: Pools, tasks: Tasks) -> Iterator[str]:
    kept_away = len(training_rows_kept_away(records))
    if kept_away:
        yield (
            f"{kept_away} films of split train are left out: their Patient IDs are in another "
            "split, too, at an institution of another name"
        )
    if tasks.classify:
        yield from _labels_that_do_not_count(records)
        held_out = {pools.classes[row] for row in pools.validation}
        missing = [name for index, name in enumerate(CLASSES) if index not in held_out]
        if missing:
            yield (
                f"no film labelled {' or '.join(missing)} is held out, so nothing measures or "
                "calibrates the verdict; label more patients, or raise validation_share"
            )
    if tasks.segment and not any(records[row].has_mask for row in pools.validation):
        yield (
            "no film with a mask is held out, so nothing measures the masks; draw masks of more "
            "patients, or raise validation_share"
        )


def _labels_that_do_not_count(records: Sequence[ImageRecord]) -> Iterator[str]:
    sources = one_class_sources(records)
    counts = Counter(r.source or UNNAMED for r in records if r.label and r.source in sources)
    if counts:
        named = ", ".join(f"{source} ({count})" for source, count in sorted(counts.items()))
        yield (
            f"the labels of {named} do not count: all of one class while another source has both, "
            "so that telling sources apart would pass for diagnosis"
        )
