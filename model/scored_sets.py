"""The films that a reproduction scores its models on, in-domain and cross-domain."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dicom_io.errors import TrainingError
from model.copies import copies_between
from model.image_table import TABLE_SIDE, ImageTable
from model.table_grid import Domain


@dataclass(frozen=True)
class ScoredSet:
    """Some films, and all that figures about them depend on but for the model.

    Attributes:
        domain: what the set stands for in the table.
        table: the exports that hold the films.
        rows: of the table, those that are scored.
        sha256: of the films' pixels, masks and labels, of the grid that masks are scored on, and of
            what the exports say of every film of the table, on which trivial features are judged.
    """

    domain: Domain
    table: ImageTable
    rows: tuple[int, ...]
    sha256: str


def scored_sets(
    learnt: ImageTable, other: ImageTable | None, most_films: int | None
) -> list[ScoredSet]:
    """The ``val`` split of what is learnt from, and all of what is not.

    Args:
        learnt: images to learn from.
        other: images scored cross-domain, or None.
        most_films: of each set; None for all.

    Raises:
        TrainingError: there is no image to score in-domain.
    """
    rows = _films(learnt, "val", most_films)
    if not rows:
        raise TrainingError(
            "no image of split 'val' in the exports of --data, so there is nothing to score; write "
            "val into the split column of labels.csv for the images of some patients"
        )
    sets = [ScoredSet("in-domain", learnt, rows, _hash(learnt, rows))]
    if other is not None:
        rows = _films(other, None, most_films)
        sets.append(ScoredSet("cross-domain", other, rows, _hash(other, rows)))
    return sets


def require_never_learnt(
    learnt: ImageTable, learnt_rows: Sequence[int], other: ImageTable, rows: Sequence[int]
) -> None:
    """Refuse to score, as films of elsewhere, what is learnt from or held out of it.

    Args:
        learnt: images to learn from.
        learnt_rows: rows of it that are learnt from or held out.
        other: images scored cross-domain.
        rows: of it, those that are scored.

    Raises:
        TrainingError: a film is in both by its SOP Instance UID or its pixels, or its patient by
            institution and Patient ID.
    """
    records = [learnt.records[row] for row in learnt_rows]
    uids = {record.sop_instance_uid for record in records}
    people = {(record.source, record.person) for record in records}
    known = {copy.scored_row for copy in copies_between(learnt, learnt_rows, rows, other)}
    for row in rows:
        record = other.records[row]
        if record.sop_instance_uid in uids or (record.source, record.person) in people:
            known.add(row)
    if known:
        raise TrainingError(
            f"{len(known)} of the {len(rows)} films of --cross are learnt from, too, or are of "
            "patients that are: figures on them would be no figures of unknown films; give --cross "
            "other exports, or write test into the split column of labels.csv for those patients "
            "in the exports of --data"
        )


def _films(table: ImageTable, split: str | None, most: int | None) -> tuple[int, ...]:
    """Rows of a split, at most so many of them; the same ones whatever else the table holds."""
    rows = [row for row, record in enumerate(table.records) if split in (None, record.split)]

    def place(row: int) -> bytes:
        return hashlib.sha256(table.records[row].sop_instance_uid.encode()).digest()

    return tuple(sorted(sorted(rows, key=place)[:most]))


def _hash(table: ImageTable, rows: Sequence[int]) -> str:
    """See ``ScoredSet``; a folder that was moved makes no difference."""
    digest = hashlib.sha256(table.content_hash(rows).encode())
    digest.update(f"masks scored at {TABLE_SIDE} px".encode())
    for record in table.records:
        digest.update(repr(replace(record, path="", mask_paths=())).encode())
    return digest.hexdigest()


def in_words(table: ImageTable, rows: Sequence[int]) -> str:
    """How many of some films are of which source and split: ``81 CheX train, 12 NIH train``."""
    counts: dict[str, int] = {}
    for row in rows:
        record = table.records[row]
        name = f"{record.source or 'unnamed'} {record.split or 'without split'}"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
