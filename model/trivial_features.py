"""What can be said of a film without looking for disease: its origin, its patient, its exposure.

None of these features is a finding. A classifier that does no better than they do may have learnt
the scanner (``model.shortcuts``).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.image_table import ImageTable

# Rarer words say too little, and a hundred columns would cost more than they tell.
MOST_WORDS = 20

Floats = NDArray[np.float64]
Words = tuple[str, ...]

FEATURES: Final = (
    "source",
    "view",
    "sender",
    "manufacturer",
    "station",
    "sex",
    "age",
    "rows",
    "columns",
    "mean intensity",
    "sharpness",
)


@dataclass(frozen=True)
class TrivialFeatures:
    """Trivial features of some films.

    Attributes:
        words: one word a film of each categorical feature; empty where unknown.
        numbers: float64, (films,), of each numeric feature; NaN where unknown.
        patients: who each film is of, as ``ImageRecord.person``.
    """

    words: dict[str, Words]
    numbers: dict[str, Floats]
    patients: Words


def read_trivial_features(table: ImageTable, rows: Sequence[int]) -> TrivialFeatures:
    """Read the trivial features of some rows of a table.

    Mean intensity and sharpness (mean absolute difference of horizontal neighbours) are measured
    on the preprocessed film, in grey levels: it is what a network sees of them.

    Args:
        table: images and what the exports say of them.
        rows: which films.
    """
    records = [table.records[row] for row in rows]
    exposure = np.array([_exposure(table, row) for row in rows]).reshape(-1, 2)
    ages = [np.nan if r.age_years is None else r.age_years for r in records]
    return TrivialFeatures(
        words={
            "source": tuple(r.source for r in records),
            "view": tuple(r.view for r in records),
            "sender": tuple(r.sender for r in records),
            "manufacturer": tuple(r.manufacturer for r in records),
            "station": tuple(r.station for r in records),
            "sex": tuple(r.sex for r in records),
        },
        numbers={
            "age": np.array(ages, dtype=np.float64),
            "rows": np.array([r.rows for r in records], dtype=np.float64),
            "columns": np.array([r.columns for r in records], dtype=np.float64),
            "mean intensity": exposure[:, 0],
            "sharpness": exposure[:, 1],
        },
        patients=tuple(r.person for r in records),
    )


def _exposure(table: ImageTable, row: int) -> tuple[float, float]:
    image_hw = table.images[row].astype(np.int16)
    return float(image_hw.mean()), float(np.abs(np.diff(image_hw, axis=1)).mean())


def encode(
    features: TrivialFeatures, fitted: NDArray[np.int64], names: Sequence[str] = FEATURES
) -> Floats:
    """Columns for a linear model: numbers standardised, words one-hot, unknown numbers flagged.

    Args:
        features: of all films.
        fitted: the films whose mean, spread and words define the columns.
        names: which features.

    Returns:
        float64, (films, columns); every column has mean 0 over the fitted films, so that a feature
        that never varies among them is 0.
    """
    columns = [
        column
        for name in names
        for column in (
            _one_hot(features.words[name], fitted)
            if name in features.words
            else _standardised(features.numbers[name], fitted)
        )
    ]
    return np.stack([column - column[fitted].mean() for column in columns], axis=1)


def _one_hot(words: Words, fitted: NDArray[np.int64]) -> list[Floats]:
    frequent = Counter(words[film] for film in fitted).most_common(MOST_WORDS)
    return [np.array([float(word == known) for word in words]) for known, _ in frequent]


def _standardised(numbers: Floats, fitted: NDArray[np.int64]) -> list[Floats]:
    unknown = np.isnan(numbers)
    known = numbers[fitted][~unknown[fitted]]
    centre, spread = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
    # A feature that is constant among the fitted films says nothing, whatever it is elsewhere.
    scaled = np.where(unknown, 0.0, (numbers - centre) / spread) if spread > 0 else 0.0 * unknown
    return [np.clip(scaled, -5.0, 5.0), unknown.astype(np.float64)]
