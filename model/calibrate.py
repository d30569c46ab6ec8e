"""From a raw margin to a probability that means what it says, and to a verdict."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from model.checkpoint import Calibration
from model.image_table import ImageTable
from model.mirroring import MirrorAveraged
from model.network import MultiMixNetwork
from model.predictor import calibrated
from model.splits import Pools
from model.validation import pneumonia_margins


def fit_calibration(
    network: MultiMixNetwork | MirrorAveraged, table: ImageTable, pools: Pools, side: int
) -> Calibration:
    """Fit Platt scaling and the operating point on the held-out patients.

    Returns:
        The identity where the held-out patients do not have both classes.
    """
    rows = [row for row in pools.validation if pools.classes[row] >= 0]
    labels = np.array([pools.classes[row] for row in rows])
    if len(np.unique(labels)) < 2:
        return Calibration()
    found = pneumonia_margins(network, table, rows, side)
    scale, offset = platt(found, labels)
    return Calibration(
        scale=scale,
        offset=offset,
        operating_point=balanced_operating_point(calibrated(found, scale, offset), labels),
    )


def platt(margins_n: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Scale and offset of the smallest log loss, with a weak pull towards (1, 0).

    The pull keeps a perfectly separated validation set from an infinite scale.
    """

    def log_loss(log_scale_offset: NDArray[np.float64]) -> float:
        scale, offset = np.exp(log_scale_offset[0]), log_scale_offset[1]
        signed = (2 * labels - 1) * (scale * margins_n + offset)
        return float(np.logaddexp(0, -signed).sum() + 0.5 * (log_scale_offset**2).sum())

    fitted = minimize(log_loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(fitted[0])), float(fitted[1])


def balanced_operating_point(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> float:
    """The probability that maximises the mean of sensitivity and specificity.

    Midway between the two neighbouring probabilities, so that rounding does not decide a verdict.
    """
    order = np.unique(probabilities)
    candidates = (order[1:] + order[:-1]) / 2
    if not len(candidates):
        return 0.5
    sensitivity = (probabilities[labels == 1][None] >= candidates[:, None]).mean(1)
    specificity = (probabilities[labels == 0][None] < candidates[:, None]).mean(1)
    return float(candidates[np.argmax(sensitivity + specificity)])
