"""The same film under two patients, once to learn from and once to be scored on.

Splits are by patient, so a film that an archive holds twice under different Patient IDs can end up
on both sides, and a model is praised for remembering it. Equal pixels of the network's input tell.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from model.image_table import ImageTable

NAMED = 5


@dataclass(frozen=True)
class Copy:
    """Two rows of a table with the same pixels."""

    learnt_row: int
    scored_row: int


def copies_between(
    table: ImageTable,
    learnt: Sequence[int],
    scored: Sequence[int],
    scored_of: ImageTable | None = None,
) -> list[Copy]:
    """Scored rows that hold the film of a row that is learnt from.

    Args:
        table: the images.
        learnt: rows that are learnt from.
        scored: rows held out, or of another split.
        scored_of: the table of ``scored``, where it is another one.
    """
    row_of_pixels = {_pixel_hash(table, row): row for row in learnt}
    return [
        Copy(row_of_pixels[pixels], row)
        for row in scored
        if (pixels := _pixel_hash(scored_of or table, row)) in row_of_pixels
    ]


def warn_of_copies(
    table: ImageTable, learnt: Sequence[int], scored: Sequence[int], console: Console
) -> None:
    """Name films that a run learns from and is scored on at once."""
    copies = copies_between(table, learnt, scored)
    if not copies:
        return
    named = ", ".join(
        f"{table.records[copy.learnt_row].sop_instance_uid} = "
        f"{table.records[copy.scored_row].sop_instance_uid}"
        for copy in copies[:NAMED]
    )
    console.print(
        f"warning: {len(copies)} of {len(scored)} films that are held out or of another "
        f"split hold the very pixels of one that is learnt from, under another patient ({named}"
        f"{', …' if len(copies) > NAMED else ''}); figures on them flatter the model",
        style="yellow",
        markup=False,
        soft_wrap=True,
    )


def _pixel_hash(table: ImageTable, row: int) -> bytes:
    return hashlib.sha256(table.images[row].tobytes()).digest()
