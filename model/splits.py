"""Which rows a training run may use for what: patients held out, budgets, labels that mislead.

Every choice is a function of the seed and of what identifies the row, never of the row's place, so
the same patients are held out whatever else the export holds.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dicom_io.errors import TrainingError
from model.config import Tasks, TrainingConfig
from model.image_table import ImageRecord
from model.network import CLASSES


@dataclass(frozen=True)
class Pools:
    """Row numbers of the table, by what a training run may use them for.

    Attributes:
        labelled: rows whose class label the classifier learns from.
        masked: rows whose mask the segmentation learns from.
        unlabelled: rows that give pseudo-labels; every training row, labels hidden.
        validation: rows held out by patient.
        classes: class index of each row that is in ``labelled`` or ``validation``, -1 for all
            others: an image drawn for its mask must not bring a label that the budget hides.
    """

    labelled: tuple[int, ...]
    masked: tuple[int, ...]
    unlabelled: tuple[int, ...]
    validation: tuple[int, ...]
    classes: tuple[int, ...]


def divide(
    records: Sequence[ImageRecord],
    *,
    labels: int | None,
    masks: int | None,
    validation_share: float,
    seed: int,
) -> Pools:
    """Hold out validation patients and choose the label and mask budgets, seeded and nested.

    Rows of a split other than ``train`` are never used, nor are other rows of a Patient ID that has
    rows in such a split, at whatever institution. The order within a budget depends on the seed
    alone, so the first 10 masks are part of the first 50.

    Args:
        records: all rows of the table.
        labels: how many labelled rows to keep; None for all.
        masks: how many masked rows to keep; None for all.
        validation_share: share of patients held out, in (0, 1); of Patient IDs that stand at
            several institutions it is more.
        seed: decides which.

    Raises:
        TrainingError: nothing is left to train on.
    """
    usable = without_one_class_labels(records)
    kept_away = _people_of_other_splits(records)
    drawn = _people_drawn(records, validation_share, seed)
    training: list[int] = []
    validation: list[int] = []
    for row, record in enumerate(usable):
        if record.split not in (None, "train") or record.person in kept_away:
            continue
        (validation if record.person in drawn else training).append(row)
    shuffled = sorted(training, key=lambda row: _share_of(f"{seed}#{usable[row].sop_instance_uid}"))
    labelled = [row for row in shuffled if usable[row].class_index >= 0]
    masked = [row for row in shuffled if usable[row].has_mask]
    budgeted = _stratified(labelled, usable, labels)
    known = {*budgeted, *validation}
    if not training:
        raise TrainingError(
            f"no film is left to learn from: {len(validation)} are of patients that are held out, "
            f"{len(records) - len(validation)} of another split or of its patients; see the "
            "splits in labels.csv, and whether each patient has a Patient ID of their own"
        )
    if not (labelled or masked):
        raise TrainingError("no training row has a label or a mask; see labels.csv and the SEGs")
    return Pools(
        labelled=tuple(budgeted),
        masked=tuple(masked if masks is None else masked[:masks]),
        unlabelled=tuple(training),
        validation=tuple(validation),
        classes=tuple(r.class_index if row in known else -1 for row, r in enumerate(usable)),
    )


def divide_as_configured(records: Sequence[ImageRecord], config: TrainingConfig) -> Pools:
    """What a run of this configuration uses each row for; see ``divide``.

    Raises:
        TrainingError: nothing is left to train on.
    """
    return divide(
        records,
        labels=config.labels,
        masks=config.masks,
        validation_share=config.validation_share,
        seed=config.seed,
    )


def require_annotations(pools: Pools, tasks: Tasks) -> None:
    """Refuse a run that has a task but nothing to learn it from.

    Raises:
        TrainingError: a task has no annotated training row, or the labels are all of one class;
            the message names a model without the task.
    """
    if tasks.classify and not pools.labelled:
        raise TrainingError("no training row has a usable label; --model unet needs none")
    classes = {pools.classes[row] for row in pools.labelled}
    if tasks.classify and len(classes) < len(CLASSES):
        raise TrainingError(
            f"every label to learn from is {CLASSES[classes.pop()]}, so there is nothing to tell "
            "it from; label films of both classes, raise --labels, or take --model unet, which "
            "needs none"
        )
    if tasks.segment and not pools.masked:
        raise TrainingError("no training row has a lung mask; --model encssl needs none")


def require_score(records: Sequence[ImageRecord], pools: Pools, config: TrainingConfig) -> None:
    """Refuse to wait for a better score where nothing can be scored.

    Raises:
        TrainingError: the run has a patience, and those held out have neither a mask nor both
            classes, whichever its tasks are scored by.
    """
    has_masks = any(records[row].has_mask for row in pools.validation)
    classes = {pools.classes[row] for row in pools.validation} - {-1}
    has_classes = len(classes) == len(CLASSES)
    is_scored = (config.tasks.segment and has_masks) or (config.tasks.classify and has_classes)
    if config.patience is not None and not is_scored:
        raise TrainingError(
            "patience waits for a better score, but the patients held out have neither masks nor "
            "labels of both classes to score by; raise validation_share, or leave patience out"
        )


def require_disjoint_patients(records: Sequence[ImageRecord]) -> None:
    """Refuse an export whose splits share a patient, or a study whose films have no Patient ID.

    Two hospitals may use one number for two people, so the same Patient ID in two splits is none of
    this where the institutions differ; ``divide`` keeps such films out of training.

    Raises:
        TrainingError: a patient of one source is in two splits.
    """
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        if record.split:
            splits[(record.source, record.person)].add(record.split)
    torn = sum(len(names) > 1 for names in splits.values())
    if torn:
        raise TrainingError(
            f"{torn} patients are in two splits of the export; split by patient, not by image, and "
            "give each patient a Patient ID of their own"
        )


def training_rows_kept_away(records: Sequence[ImageRecord]) -> list[int]:
    """Rows of split ``train`` that are not used: their Patient ID is in another split, too."""
    kept_away = _people_of_other_splits(records)
    return [
        row
        for row, record in enumerate(records)
        if record.split == "train" and record.person in kept_away
    ]


def _people_drawn(records: Sequence[ImageRecord], share: float, seed: int) -> frozenset[str]:
    """Patient IDs that are held out: those drawn at any institution that they stand at.

    So no film that is added, under whatever name, lets a patient be learnt from who was held out.
    """
    return frozenset(
        record.person
        for record in records
        if _share_of(f"{seed}/{record.source}/{record.person}") < share
    )


def _people_of_other_splits(records: Sequence[ImageRecord]) -> frozenset[str]:
    return frozenset(record.person for record in records if record.split not in (None, "train"))


def one_class_sources(records: Sequence[ImageRecord]) -> frozenset[str]:
    """Sources whose labels are all of one class while another source has both.

    A classifier that saw them would learn the source instead of the disease, so their labels
    neither train nor score it.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.label:
            classes[record.source].add(record.label)
    if not any(len(found) > 1 for found in classes.values()):
        return frozenset()
    return frozenset(source for source, found in classes.items() if len(found) == 1)


def without_one_class_labels(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The records with the labels of ``one_class_sources`` taken away."""
    hidden = one_class_sources(records)
    return [replace(r, label=None) if r.source in hidden else r for r in records]


def _stratified(
    rows: Sequence[int], records: Sequence[ImageRecord], budget: int | None
) -> list[int]:
    """The first ``budget`` rows, nested: one of each class, then in the proportion of all rows."""
    if budget is None or budget >= len(rows):
        return list(rows)
    shares = Counter(records[row].class_index for row in rows)
    # Each row's rank within its class, scaled by the class's share, interleaves the classes in
    # their natural proportion at every prefix.
    seen: Counter[int] = Counter()
    ranked = []
    for row in rows:
        seen[records[row].class_index] += 1
        rank = (seen[records[row].class_index] - 0.5) / shares[records[row].class_index]
        ranked.append((seen[records[row].class_index] > 1, rank, row))
    return [row for *_, row in sorted(ranked)[:budget]]


def _share_of(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) / 2**56
