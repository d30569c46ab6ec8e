"""How far trivial features alone predict the label: the figure that a classifier has to beat.

Where pneumonia is photographed at the bedside and health in the department, a network can answer
by the view alone. The guard says so at the start of a training, and stands beside every
evaluation.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.optimize import minimize
from scipy.special import expit

from model.image_table import ImageTable
from model.metrics import auroc
from model.splits import Pools
from model.trivial_features import (
    FEATURES,
    Floats,
    TrivialFeatures,
    encode,
    read_trivial_features,
)

SUSPICIOUS_AUROC: Final = 0.6
FOLDS = 5
# Enough for a figure to two decimals; more films would only take time.
MOST_FITTED = 4000
FEWEST_OF_EACH_CLASS = 10
PENALTY = 1.0

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shortcuts:
    """How well trivial features tell pneumonia from normal.

    Attributes:
        films: how many labelled films the figures are of.
        auroc: of a logistic regression on all features, cross-validated by patient.
        auroc_of: of each feature alone; a number's better direction, or whether it is known where
            that tells more, a word's share of pneumonia among other patients.
    """

    films: int
    auroc: float
    auroc_of: dict[str, float]

    @property
    def suspicious(self) -> dict[str, float]:
        """Everything above ``SUSPICIOUS_AUROC``, the strongest first."""
        found = {"all together": self.auroc} | self.auroc_of
        return {
            name: value
            for name, value in sorted(found.items(), key=lambda item: -item[1])
            if value > SUSPICIOUS_AUROC
        }


def find_shortcuts(
    table: ImageTable, rows: Sequence[int], classes: Sequence[int]
) -> Shortcuts | None:
    """Measure how well trivial features predict the labels of some rows.

    Args:
        table: images and what the exports say of them.
        rows: which films; a sample that depends on their SOP Instance UIDs alone stands for more
            than 4,000.
        classes: 0 normal, 1 pneumonia or -1 of every row of the table.

    Returns:
        None where fewer than ten films of a class are labelled.
    """
    chosen = _sample(table, _labelled(rows, classes))
    labels = np.array([classes[row] for row in chosen], dtype=np.int64)
    if not _has_enough(labels):
        return None
    features = read_trivial_features(table, chosen)
    alone = {
        name: _auroc_of_number(features.numbers[name], labels)
        if name in features.numbers
        else _auroc_or_half(_out_of_fold(features, labels, (name,)), labels)
        for name in FEATURES
    }
    alone |= {
        name: max(alone[name], _auroc_or_half(_out_of_fold(features, labels, (name,)), labels))
        for name, numbers in features.numbers.items()
        if np.isnan(numbers).any()
    }
    together = _out_of_fold(features, labels, FEATURES)
    return Shortcuts(len(chosen), _auroc_or_half(together, labels), alone)


def warn_of_shortcuts(table: ImageTable, pools: Pools, console: Console) -> None:
    """Say how well trivial features alone predict the labels that the run may see."""
    found = find_shortcuts(table, [*pools.labelled, *pools.validation], pools.classes)
    if found is None:
        console.print("too few labels to tell how far trivial features predict them")
        return
    console.print(
        f"trivial features together predict the label with an AUROC of {found.auroc:.2f} "
        f"({found.films} films, cross-validated); the model has to do better",
        soft_wrap=True,
    )
    if found.suspicious:
        named = ", ".join(f"{name} {value:.2f}" for name, value in found.suspicious.items())
        console.print(
            f"[yellow]warning: AUROC above {SUSPICIOUS_AUROC} without looking for disease: "
            f"{named}; judge the model within each view and source[/yellow]",
            soft_wrap=True,
        )


@dataclass(frozen=True)
class ShortcutScores:
    """What a logistic regression on trivial features says of some films.

    Attributes:
        of_row: score by row of the table, the larger the more like pneumonia.
        fitted_on: which films it was fitted on, in words.
    """

    of_row: dict[int, float]
    fitted_on: str


def score_by_shortcuts(
    table: ImageTable, rows: Sequence[int], classes: Sequence[int]
) -> ShortcutScores | None:
    """Score labelled films by their trivial features alone, never by a fit on themselves.

    The fit is on the labelled films outside ``rows`` whose patients are not among ``rows``; where
    those are too few, it is cross-validated by patient within ``rows``.

    Args:
        table: images and what the exports say of them.
        rows: the films to score; those without a label are left out.
        classes: 0 normal, 1 pneumonia or -1 of every row of the table.

    Returns:
        None where no fit has ten films of each class.
    """
    scored = _labelled(rows, classes)
    within = set(rows)
    people = {table.records[row].person for row in rows}
    others = _sample(
        table,
        [
            row
            for row in _labelled(range(len(table.records)), classes)
            if row not in within and table.records[row].person not in people
        ],
    )
    if _has_enough(np.array([classes[row] for row in others], dtype=np.int64)):
        features = read_trivial_features(table, [*others, *scored])
        fitted = np.arange(len(others))
        labels = np.array([classes[row] for row in others], dtype=np.int64)
        scores = _fit_and_score(features, fitted, labels, FEATURES)[len(others) :]
        where = f"{len(others)} labelled images outside the evaluated ones"
        return ShortcutScores(dict(zip(scored, map(float, scores), strict=True)), where)
    labels = np.array([classes[row] for row in scored], dtype=np.int64)
    if not _has_enough(labels):
        return None
    scores = _out_of_fold(read_trivial_features(table, scored), labels, FEATURES)
    where = "the evaluated images themselves, cross-validated by patient"
    return ShortcutScores(dict(zip(scored, map(float, scores), strict=True)), where)


def _labelled(rows: Sequence[int], classes: Sequence[int]) -> list[int]:
    return [row for row in rows if classes[row] >= 0]


def _sample(table: ImageTable, rows: list[int]) -> list[int]:
    if len(rows) <= MOST_FITTED:
        return rows
    return sorted(rows, key=lambda row: _digest(table.records[row].sop_instance_uid))[:MOST_FITTED]


def _has_enough(labels: Ints) -> bool:
    return bool(np.bincount(labels, minlength=2).min() >= FEWEST_OF_EACH_CLASS)


def _auroc_of_number(numbers: Floats, labels: Ints) -> float:
    """Of a number alone in its better direction; where it is unknown it stands in the middle."""
    known = numbers[~np.isnan(numbers)]
    middle = float(np.median(known)) if len(known) else 0.0
    area = _auroc_or_half(np.where(np.isnan(numbers), middle, numbers), labels)
    return max(area, 1 - area)


def _auroc_or_half(scores: Floats, labels: Ints) -> float:
    area = auroc(scores, labels)
    return 0.5 if area is None else area


def _out_of_fold(features: TrivialFeatures, labels: Ints, names: Sequence[str]) -> Floats:
    """Each film's score by a fit on other patients."""
    fold_of = np.array([int.from_bytes(_digest(who)[:4]) % FOLDS for who in features.patients])
    scores = np.zeros(len(labels))
    for fold in range(FOLDS):
        inside, others = fold_of == fold, np.flatnonzero(fold_of != fold)
        if len(np.unique(labels[others])) == 2:
            scores[inside] = _fit_and_score(features, others, labels[others], names)[inside]
    return scores


def _fit_and_score(
    features: TrivialFeatures, fitted: Ints, labels: Ints, names: Sequence[str]
) -> Floats:
    """Scores of all films by a logistic regression on some of them.

    The intercept is left out of the score. It differs between folds by the share of pneumonia
    that was left for the fit, which is small just where the scored fold's share is large: pooled
    scores with it would rank featureless films worse than chance.
    """
    columns = encode(features, fitted, names)
    return columns @ fit_logistic(columns[fitted], labels)


def fit_logistic(columns: Floats, labels: Ints, penalty: float = PENALTY) -> Floats:
    """Weights of a logistic regression with an L2 penalty; the intercept is free and not returned.

    Minimises the summed log loss plus ``penalty / 2`` times the squared weights.

    Args:
        columns: float64, (films, columns).
        labels: 0 or 1, (films,).
        penalty: positive; the larger, the smaller the weights.

    Returns:
        float64, (columns,).
    """
    signs = 2.0 * labels - 1.0

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, intercept = parameters[:-1], parameters[-1]
        margins = signs * (columns @ weights + intercept)
        pull = -signs * expit(-margins)
        value = float(np.logaddexp(0, -margins).sum() + penalty / 2 * weights @ weights)
        return value, np.append(columns.T @ pull + penalty * weights, pull.sum())

    start = np.zeros(columns.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(found.x[:-1], dtype=np.float64)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
