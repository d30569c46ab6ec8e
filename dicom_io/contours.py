"""The outlines of a mask as closed polygons in image coordinates."""

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray


def outlines(mask_hw: NDArray[np.bool_], tolerance: float) -> list[NDArray[np.float64]]:
    """Trace the borders of a mask, holes included.

    Args:
        mask_hw: bool, (rows, columns).
        tolerance: how far a corner that is left out may lie from the polygon, in pixels.

    Returns:
        Closed polygons, (points, 2), the first point again at the end, longest first; each point
        is (column, row) with the origin at the top left corner of the top left pixel and (1, 1) at
        its bottom right corner (units PIXEL of PS3.3 C.10.5.1.2).
    """
    # The frame of zeros closes the outline of a lung that reaches the edge of the film.
    framed_hw = np.pad(mask_hw.astype(np.float32), 1)
    traced = contour_generator(z=framed_hw, line_type="Separate").lines(0.5)
    # Sample positions are pixel centres, and the frame moved them by one.
    polygons = [_simplified(np.asarray(line) - 0.5, tolerance) for line in traced]
    return sorted((polygon for polygon in polygons if len(polygon) >= 4), key=_length, reverse=True)


def _simplified(closed: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Leave out points that lie within the tolerance of the rest (Douglas and Peucker, 1973)."""
    farthest = int(np.argmax(np.hypot(*(closed - closed[0]).T)))
    kept = np.zeros(len(closed), dtype=np.bool_)
    kept[[0, farthest, -1]] = True
    stretches = [(0, farthest), (farthest, len(closed) - 1)]
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        if distances.max() > tolerance:
            middle = first + 1 + int(np.argmax(distances))
            kept[middle] = True
            stretches += [(first, middle), (middle, last)]
    return closed[kept]


def _distances(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of each point to the straight line from start to end."""
    along = end - start
    length = float(np.hypot(*along))
    offsets = points - start
    if length == 0:
        return np.asarray(np.hypot(*offsets.T), dtype=np.float64)
    across = np.abs(offsets[:, 0] * along[1] - offsets[:, 1] * along[0])
    return np.asarray(across / length, dtype=np.float64)


def _length(polygon: NDArray[np.float64]) -> float:
    return float(np.hypot(*np.diff(polygon, axis=0).T).sum())
