"""What each training step draws: endless, reshuffled sequences of rows.

A draw is a pure function of (seed, step), so a resumed run draws exactly what the uninterrupted
one would, and no shuffled order has to be saved.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from model.config import TrainingConfig
from model.image_table import ImageRecord
from model.splits import Pools


@dataclass(frozen=True)
class Stream:
    """An endless, reshuffled sequence of rows; the draw of a step depends on (seed, step) alone.

    Attributes:
        rows: row numbers of the table.
        weights: how often each is drawn, relative; None draws all equally, without replacement
            within a pass.
        batch: rows a step.
        seed: of this stream.
    """

    rows: tuple[int, ...]
    weights: tuple[float, ...] | None
    batch: int
    seed: int

    def draw(self, step: int) -> list[int]:
        """The rows of one step, counted from 0."""
        if self.weights is not None:
            generator = seeded(self.seed, step)
            weights = torch.tensor(self.weights)
            chosen = torch.multinomial(weights, self.batch, replacement=True, generator=generator)
            return [self.rows[i] for i in chosen.tolist()]
        count = len(self.rows)
        first, end = step * self.batch, (step + 1) * self.batch
        shuffled: list[int] = []
        for turn in range(first // count, (end - 1) // count + 1):
            shuffled += torch.randperm(count, generator=seeded(self.seed, turn)).tolist()
        start = first % count
        return [self.rows[place] for place in shuffled[start : start + self.batch]]


@dataclass(frozen=True)
class Streams:
    """What each step draws from; a stream is None where its task is off.

    Attributes:
        labelled: images with a class label.
        masked: images with a mask.
        unlabelled: images without either, or with both hidden.
        unmasked: images without a mask, or with it hidden, for a term that compares their masks
            with those of other images.
        restored: images for the steps of a warm-up, as many as any other step sees.
    """

    labelled: Stream | None
    masked: Stream | None
    unlabelled: Stream | None
    unmasked: Stream | None = None
    restored: Stream | None = None

    @property
    def rows(self) -> list[int]:
        """Every row of the table that the run may learn from, ascending."""
        streams = (self.labelled, self.masked, self.unlabelled, self.unmasked, self.restored)
        return sorted({row for stream in streams if stream is not None for row in stream.rows})

    @property
    def images_per_step(self) -> int:
        """Films that pass through the network in one step; weak and strong views count as two."""
        streams = (self.labelled, self.masked, self.unmasked)
        seen_once = [stream.batch for stream in streams if stream is not None]
        return sum(seen_once) + (2 * self.unlabelled.batch if self.unlabelled is not None else 0)


def make_streams(records: Sequence[ImageRecord], pools: Pools, config: TrainingConfig) -> Streams:
    """The streams that the configuration's tasks need."""
    tasks = config.tasks
    balanced = config.balance_classes or config.source_exponent < 1

    def stream(rows: tuple[int, ...], batch: int, number: int, classes: bool) -> Stream | None:
        if not rows:
            return None
        weights = None
        if balanced:
            weights = balanced_weights(
                rows,
                records,
                classes=pools.classes if classes and config.balance_classes else None,
                source_exponent=config.source_exponent,
            )
        return Stream(rows, weights, batch, seed=config.seed * 8 + number)

    compares = config.compares_with_other_films
    needs_unlabelled = tasks.pseudo_labels or (tasks.unlabelled_masks and not compares)
    streams = Streams(
        labelled=stream(pools.labelled, config.class_batch, 1, True) if tasks.classify else None,
        masked=stream(pools.masked, config.mask_batch, 2, False) if tasks.segment else None,
        unlabelled=(
            stream(pools.unlabelled, config.unlabelled_batch, 3, False)
            if needs_unlabelled
            else None
        ),
        unmasked=(
            stream(pools.unlabelled, config.unlabelled_batch, 5, False) if compares else None
        ),
    )
    if not config.warm_up_steps:
        return streams
    restored = stream(pools.unlabelled, streams.images_per_step, 4, False)
    return replace(streams, restored=restored)


def balanced_weights(
    rows: Sequence[int],
    records: Sequence[ImageRecord],
    *,
    classes: Sequence[int] | None,
    source_exponent: float,
) -> tuple[float, ...]:
    """Weights that draw sources by size ** exponent and, within one, both classes equally.

    Args:
        rows: rows of a stream.
        records: of the whole table.
        classes: class index of every row of the table, or None to leave classes as they are.
        source_exponent: 1 as they come, 0 each source equally often.
    """
    sizes = Counter(records[row].source for row in rows)
    groups = [(records[row].source, classes[row] if classes is not None else None) for row in rows]
    members = Counter(groups)
    classes_of_source = Counter(source for source, _ in members)
    return tuple(
        sizes[source] ** source_exponent / classes_of_source[source] / members[(source, group)]
        for source, group in groups
    )


def seeded(*parts: int) -> torch.Generator:
    """A generator whose whole sequence depends on the given numbers alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
