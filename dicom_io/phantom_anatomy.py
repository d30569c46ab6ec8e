"""The shapes of a drawn frontal chest, as maps of how much of an X-ray they absorb.

Coordinates: ``x`` runs from -0.5 at the image's left edge (the patient's right) to 0.5, ``y`` from
0 at the top to 1; ``across`` is the distance from the midline. 1 absorbs like the thickest part of
the trunk.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

Grid = NDArray[np.float32]

# Outline of a lung by height: where its outer and its inner border lie beside the midline, and by
# distance from the midline: where the diaphragm lies.
_HEIGHTS: Final = (0.09, 0.11, 0.15, 0.22, 0.32, 0.45, 0.60, 0.74, 0.95)
_OUTER: Final = (0.130, 0.170, 0.215, 0.257, 0.300, 0.330, 0.350, 0.362, 0.368)
_INNER: Final = (0.120, 0.078, 0.058, 0.050, 0.052, 0.058, 0.062, 0.066, 0.070)
_DISTANCES: Final = (0.00, 0.06, 0.12, 0.19, 0.26, 0.32, 0.36, 0.50)
_DIAPHRAGM: Final = (0.760, 0.745, 0.720, 0.712, 0.735, 0.785, 0.845, 1.00)
_RIB_PAIRS: Final = 10


@dataclass(frozen=True)
class Habitus:
    """What differs from one chest to the next.

    Attributes:
        x: position of each pixel, (rows, columns).
        y: position of each pixel, (rows, columns).
        breath: how much lower than usual the diaphragm stands.
        width: lateral size of the rib cage, 1 is usual.
        heart_size: 1 is usual.
        rib_slope: how steeply ribs fall.
        shoulder: how much lower than usual the shoulders stand.
    """

    x: Grid
    y: Grid
    breath: float
    width: float
    heart_size: float
    rib_slope: float
    shoulder: float

    @property
    def across(self) -> Grid:
        """Distance from the midline."""
        return np.abs(self.x)


def draw_habitus(random: np.random.Generator, rows: int, columns: int) -> Habitus:
    """Choose a chest and how it lies on the film."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x = ((x + 0.5) / columns - 0.5 + random.uniform(-0.02, 0.02)) / random.uniform(0.95, 1.08)
    y = ((y + 0.5) / rows - random.uniform(-0.01, 0.04)) / random.uniform(0.95, 1.05)
    turn = random.uniform(-0.03, 0.03)
    return Habitus(
        x=(x + turn * (y - 0.5)).astype(np.float32),
        y=(y - turn * x).astype(np.float32),
        breath=random.uniform(-0.03, 0.03),
        width=random.uniform(0.96, 1.04),
        heart_size=random.uniform(0.9, 1.15),
        rib_slope=random.uniform(0.8, 1.2),
        shoulder=random.uniform(-0.02, 0.03),
    )


def lung_distance(chest: Habitus, side: int) -> Grid:
    """How far outside one lung a pixel lies; negative inside.

    Args:
        chest: the chest.
        side: -1 for the patient's right lung, on the image's left, 1 for the left one.
    """
    across, height = chest.x * side / chest.width, chest.y
    outer, inner = _curve(_HEIGHTS, _OUTER), _curve(_HEIGHTS, _INNER)
    dome = _curve(_DISTANCES, _DIAPHRAGM)
    lower = chest.breath + (0.022 if side > 0 else 0.0)
    apex = 0.095 + 1.6 * (across - 0.135) ** 2
    borders = (
        across - outer(height),
        inner(height) - across,
        height - dome(across) - lower,
        apex - height,
    )
    return np.asarray(np.maximum.reduce(borders), dtype=np.float32)


def trunk(chest: Habitus) -> Grid:
    """Neck, shoulders, trunk and upper arms: soft tissue, lungs not yet taken out."""
    across, height = chest.across, chest.y
    shoulder_line = _curve(
        (0.0, 0.09, 0.13, 0.30, 0.45, 0.60), (-0.3, -0.2, 0.03, 0.09, 0.14, 0.24)
    )
    half_width = _curve((0.0, 0.20, 0.35, 0.60, 1.1), (0.60, 0.50, 0.435, 0.425, 0.445))(height)
    top = shoulder_line(across) + chest.shoulder * np.clip(across / 0.3, 0, 1) - height
    side = across - half_width * chest.width
    depth = np.sqrt(np.clip(1.02 - (across / (half_width * chest.width)) ** 2, 0, 1))
    belly = 0.75 + 0.25 * inside(0.70 - height, 0.06)
    body = inside(np.maximum(top, side), 0.006) * (0.30 + 0.70 * depth) * belly
    arm_axis = 0.53 + 0.10 * (height - 0.2)
    arm = inside(np.maximum(np.abs(across - arm_axis) - 0.055, 0.22 - height), 0.008)
    return np.asarray(np.maximum(body, 0.45 * arm), dtype=np.float32)


def heart(chest: Habitus) -> Grid:
    """Heart with its apex to the patient's left, great vessels and the rest of the mediastinum."""
    x, y, size = chest.x, chest.y - 0.5 * chest.breath, chest.heart_size
    ventricles = _ellipse(x, y, 0.070 * size, 0.625, 0.155 * size, 0.105 * size, turn=0.55)
    atrium = _ellipse(x, y, -0.030, 0.590, 0.070 * size, 0.125)
    arch = _ellipse(x, y, 0.040, 0.330, 0.050, 0.048)
    trunk_of_vessels = _ellipse(x, y, 0.040, 0.450, 0.055, 0.085)
    column = np.abs(x) - 0.050 - 0.012 * np.cos(6 * y)
    nearest = np.minimum.reduce([ventricles, atrium, arch, trunk_of_vessels, column])
    below_neck = 0.35 + 0.65 * inside(0.16 - y, 0.04)
    return np.asarray(0.42 * inside(nearest, 0.006) * below_neck, dtype=np.float32)


def spine(chest: Habitus) -> Grid:
    """Vertebral bodies with their disc spaces, and the dark windpipe before them."""
    column = np.exp(-((chest.x / 0.036) ** 4))
    bodies = 0.16 + 0.035 * np.cos(chest.y * 2 * np.pi * 16)
    airway = np.exp(-(((chest.x + 0.004) / 0.014) ** 4)) * inside(chest.y - 0.37, 0.02)
    return np.asarray(column * bodies - 0.10 * airway, dtype=np.float32)


def ribs(chest: Habitus) -> Grid:
    """Ribs: their back parts fall away from the spine, their front parts return lower down."""
    across, height = chest.across / chest.width, chest.y
    cage = _curve(_HEIGHTS, _OUTER)(np.clip(height, 0.09, 0.95)) + 0.016
    along = np.clip((across - 0.035) / (cage - 0.035), 0, 1)
    reach = inside(across - cage, 0.004) * inside(0.033 - across, 0.004)
    total = np.zeros_like(height)
    for number in range(_RIB_PAIRS):
        start = 0.115 + 0.067 * number
        drop = chest.rib_slope * (0.045 + 0.010 * number)
        back = start + drop * along**2.2 - 0.020 * np.sin(np.pi * along)
        front = start + drop + (0.06 + 0.012 * number) * (1 - along) ** 0.8
        total += 0.115 * _band(height - back, 0.0125)
        total += 0.060 * _band(height - front, 0.0140) * inside(0.38 - along, 0.05)
    edge = np.exp(-(((across - cage + 0.006) / 0.007) ** 2)) * inside(0.16 - height, 0.02)
    return np.asarray((total + 0.10 * edge) * reach * inside(height - 0.88, 0.03), dtype=np.float32)


def shoulder_girdle(chest: Habitus) -> Grid:
    """Collar bones, shoulder blades and the heads of the upper arms."""
    across, height = chest.across, chest.y - chest.shoulder
    line = 0.195 - 0.30 * (across - 0.03) + 0.75 * np.clip(across - 0.16, 0, None) ** 1.5
    collar_bone = _band(height - line, 0.0135)
    collar_bone *= inside(across - 0.40, 0.006) * inside(0.028 - across, 0.006)
    blade = inside(np.maximum(np.abs(across - 0.385 + 0.12 * (height - 0.3)) - 0.035, 0), 0.01)
    blade *= inside(height - 0.46, 0.03) * inside(0.16 - height, 0.02)
    joint = inside(np.hypot(across - 0.475, 1.1 * (height - 0.185)) - 0.055, 0.008)
    return np.asarray(0.24 * collar_bone + 0.07 * blade + 0.16 * joint, dtype=np.float32)


def vessels(chest: Habitus, random: np.random.Generator) -> Grid:
    """Lung vessels that branch from each hilum and thin out towards the chest wall."""
    rows, columns = chest.x.shape
    canvas = Image.new("F", (columns, rows))
    pen = ImageDraw.Draw(canvas)
    for side in (-1, 1):
        for direction in np.linspace(-1.35, 1.35, 9):
            angle = direction + random.normal(0, 0.12)
            _branch(pen, canvas.size, random, (side * 0.085, 0.45), side, angle, 0.075, 4)
    drawn = np.asarray(canvas, dtype=np.float32)
    soft = ndimage.gaussian_filter(drawn, 0.0022 * rows)
    hilum = np.exp(-(((chest.across - 0.085) / 0.035) ** 2) - ((chest.y - 0.45) / 0.075) ** 2)
    return np.asarray(0.9 * soft + 0.10 * hilum, dtype=np.float32)


def consolidation(
    chest: Habitus, random: np.random.Generator, lung: NDArray[np.bool_], side: int
) -> Grid:
    """A patchy opacity with soft borders in the middle or lower part of one lung, 0 to 1."""
    centre_x, centre_y = side * random.uniform(0.17, 0.25), random.uniform(0.47, 0.66)
    radius = np.hypot(
        (chest.x - centre_x) / random.uniform(0.085, 0.13),
        (chest.y - centre_y) / random.uniform(0.085, 0.15),
    )
    ragged = radius + 0.20 * mottling(random, lung.shape, 0.12)
    ragged += 0.06 * mottling(random, lung.shape, 0.04)
    inner = ndimage.gaussian_filter(lung.astype(np.float32), 0.004 * lung.shape[0])
    return np.asarray(inside(ragged - 0.9, 0.24) * inner * lung, dtype=np.float32)


def mottling(random: np.random.Generator, shape: tuple[int, ...], scale: float) -> Grid:
    """Smooth noise of unit variance whose grains have a size of ``scale`` of the film."""
    rows, columns = shape
    small = (max(4, round(2 / scale)), max(4, round(2 / scale * columns / rows)))
    grains = Image.fromarray(random.normal(size=small).astype(np.float32))
    smooth = np.asarray(grains.resize((columns, rows), Image.Resampling.BICUBIC), dtype=np.float32)
    return smooth / max(float(smooth.std()), 1e-6)


def inside(distance: Grid, softness: float) -> Grid:
    """1 where a signed distance is negative, 0 where it is positive, soft between."""
    return np.asarray(0.5 - 0.5 * np.tanh(distance / (2 * softness)), dtype=np.float32)


def _branch(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    random: np.random.Generator,
    start: tuple[float, float],
    side: int,
    angle: float,
    length: float,
    generations: int,
) -> None:
    """Draw a vessel and, from its end, two thinner ones."""
    end = (start[0] + side * length * np.cos(angle), start[1] + length * np.sin(angle))
    points = [((x + 0.5) * size[0], y * size[1]) for x, y in (start, end)]
    strength = 0.025 + 0.022 * generations
    pen.line(points, fill=strength, width=max(1, round(0.0024 * generations * size[1])))
    if generations > 0:
        for fork in (-0.40, 0.32):
            turned = angle + fork + random.normal(0, 0.18)
            shorter = length * random.uniform(0.70, 0.95)
            _branch(pen, size, random, end, side, turned, shorter, generations - 1)


def _curve(places: tuple[float, ...], values: tuple[float, ...]) -> PchipInterpolator:
    return PchipInterpolator(places, values, extrapolate=True)


def _ellipse(
    x: Grid, y: Grid, cx: float, cy: float, half_width: float, half_height: float, turn: float = 0.0
) -> Grid:
    """Signed distance, near its border, of an ellipse turned clockwise by ``turn`` radians."""
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
    radius = np.hypot(u / half_width, v / half_height)
    return np.asarray((radius - 1) * min(half_width, half_height), dtype=np.float32)


def _band(distance: Grid, half_width: float) -> Grid:
    """A rib as the film shows it: a plate between two brighter edges."""
    relative = (distance / half_width) ** 2
    return np.asarray((0.65 + 0.55 * relative) * np.exp(-(relative**3)), dtype=np.float32)
