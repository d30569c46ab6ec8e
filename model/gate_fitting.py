"""A gate fitted to what a network makes of its training films, its threshold to held-out ones."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from model.gate import Gate, GateCard
from model.image_table import ImageTable
from model.network import MultiMixNetwork
from model.splits import Pools

DIRECTIONS = 64
# A direction is trusted only if many films stand behind it.
FILMS_PER_DIRECTION = 8
FEWEST_FILMS = 200
FEWEST_HELD_OUT = 20
# Of each source no more than this share of the held-out films may be refused.
REFUSED_SHARE = 0.005
# Fewer films than these do not show where one in fifty of them lies; then no more than this share
# of the films to come may be refused, as far as the few can tell.
FEW_HELD_OUT = 50
REFUSED_SHARE_TO_COME = 0.01
# More films of one source make the gate no better, only its fit slower.
MOST_FILMS_OF_A_SOURCE = 1500
BATCH = 32


def fit_gate(
    network: MultiMixNetwork, table: ImageTable, pools: Pools, side: int
) -> tuple[Gate, GateCard] | None:
    """Fit a gate to what a network makes of its training films.

    Args:
        network: as it will be served; left in eval mode.
        table: the images that it was trained on.
        pools: which of them it learnt from and which were held out.
        side: image side in pixels.

    Returns:
        The gate, and its card without hash; None where there are too few films to know what is
        usual.
    """
    fitted = _at_most_of_each_source(pools.unlabelled, table)
    held_out = _at_most_of_each_source(pools.validation, table)
    if len(fitted) < FEWEST_FILMS or len(held_out) < FEWEST_HELD_OUT:
        return None
    gate = gate_of(film_features(network, table, fitted, side))
    scores = gate.scores(film_features(network, table, held_out, side))
    threshold = highest_usual_score(scores, [table.records[row].source for row in held_out])
    return gate, GateCard(
        threshold=threshold, fitted_on=len(fitted), held_out=len(held_out), sha256=""
    )


def gate_of(features: NDArray[np.float64]) -> Gate:
    """The gate around a cloud of features.

    Args:
        features: (films, features), with more films than ``FILMS_PER_DIRECTION``.
    """
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = (features - centre) / spread
    _, lengths, directions = np.linalg.svd(standard, full_matrices=False)
    variances = lengths**2 / len(standard)
    kept = min(DIRECTIONS, len(features) // FILMS_PER_DIRECTION)
    return Gate(
        centre=centre,
        spread=spread,
        directions=directions[:kept],
        # A direction in which the training films hardly differ must not decide alone.
        variances=variances[:kept] + 0.01,
        rest_variance=np.array([variances[kept:].sum() + 1e-3]),
    )


@torch.no_grad()
def film_features(
    network: MultiMixNetwork, table: ImageTable, rows: Sequence[int], side: int
) -> NDArray[np.float64]:
    """The features of some rows as a network in eval mode gives them, (rows, features)."""
    network.eval()
    device = next(network.parameters()).device
    found = [
        network(table.tensors(rows[start : start + BATCH], side)[0].to(device), masks=False)
        .features.double()
        .cpu()
        .numpy()
        for start in range(0, len(rows), BATCH)
    ]
    return np.concatenate(found)


def _at_most_of_each_source(rows: Sequence[int], table: ImageTable) -> list[int]:
    """Evenly spread over each source's rows, so that one large source is not all that is usual."""
    by_source: dict[str, list[int]] = {}
    for row in rows:
        by_source.setdefault(table.records[row].source, []).append(row)
    chosen: list[int] = []
    for members in by_source.values():
        step = max(len(members) / MOST_FILMS_OF_A_SOURCE, 1.0)
        chosen += [members[int(place * step)] for place in range(int(len(members) / step))]
    return sorted(chosen)


def highest_usual_score(scores: NDArray[np.float64], sources: Sequence[str]) -> float:
    """The score that all but ``REFUSED_SHARE`` of the films of every source stay below."""
    of_source = np.array(sources)
    names, counts = np.unique(of_source, return_counts=True)
    enough = names[counts >= FEWEST_HELD_OUT]
    groups = [scores[of_source == name] for name in enough] or [scores]
    return max(_usual_score(group) for group in groups)


def _usual_score(scores_n: NDArray[np.float64]) -> float:
    """The score that nearly all films of one source stay below.

    The highest of two dozen films says little of how far the next one may lie. So of a few films
    it is not less than the prediction limit for one more, by Student's t on their logarithms.
    """
    highest_usual = float(np.quantile(scores_n, 1 - REFUSED_SHARE))
    count, logarithms = len(scores_n), np.log(scores_n)
    if count >= FEW_HELD_OUT:
        return highest_usual
    reach = stats.t.ppf(1 - REFUSED_SHARE_TO_COME, count - 1) * np.sqrt(1 + 1 / count)
    return max(highest_usual, float(np.exp(logarithms.mean() + reach * logarithms.std(ddof=1))))
