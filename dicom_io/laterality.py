"""Which lung is which: one mask of both lungs becomes the patient's right and left lung.

The split follows the mask's own geometry; the sides follow what the source says about the
patient's orientation (PS3.3 C.7.6.1.1.1) and are marked uncertain wherever it says nothing.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.findings import LungMasks
from dicom_io.heart_side import heart_asymmetry
from dicom_io.source_attributes import patient_orientation
from dicom_io.spacing import display_aspect

SMALLEST_LUNGS_SHARE: Final = 0.04
LARGEST_LUNGS_SHARE: Final = 0.70
# In 5,515 masks of two data sets the smaller lung never had less than 0.52 of the larger one.
SMALLEST_LUNG_RATIO: Final = 0.20
# A piece below this share of all that was found is a speck, not a part of a lung.
SMALLEST_PIECE_SHARE: Final = 0.01
# Two lungs have a gap or a waist between them: there the column profile falls below this share of
# both its peaks. A single lung has none.
SHALLOWEST_WAIST: Final = 0.75
SMALLEST_SHARE_BESIDE_WAIST: Final = 0.30
SMALLEST_SHARE_BESIDE_GAP: Final = 0.15
WAIST_SEARCH_BAND: Final = (0.25, 0.75)
# Width divided by height: 0.68 to 1.91 in pairs of lungs, median 0.46 and 99th percentile 0.79 in
# single lungs. Between the two bounds the waist decides.
WIDEST_SINGLE_LUNG: Final = 0.80
NARROWEST_PAIR: Final = 0.60
MIDDLE_BAND: Final = (0.40, 0.60)

# Of 465 normal films 0.2 % and of 1,536 with pneumonia 2.6 % show this much heart on the right;
# of the same films mirrored 95 % and 80 % do.
CLEAR_HEART_ASYMMETRY: Final = 0.5

FRONTAL_VIEW_POSITIONS: Final = frozenset({"AP", "PA"})


@dataclass(frozen=True)
class PatientAxis:
    """How the patient lies in the image.

    Attributes:
        axis: along which the patient's right to left runs: 1 along the rows, 0 along the columns
            (the film is rotated).
        left_is_higher: whether a higher index along it is further to the patient's left.
        feet_are_higher: whether a higher index along the other axis is nearer to the feet.
        is_certain: whether the source says so.
        evidence: where this comes from, in words.
    """

    axis: int
    left_is_higher: bool
    feet_are_higher: bool
    is_certain: bool
    evidence: str


def split_lungs(
    mask_hw: NDArray[np.bool_],
    dataset: Dataset,
    grey_hw: NDArray[np.generic] | None = None,
) -> LungMasks:
    """Split a mask of both lungs into the patient's right and left lung.

    Specks are left out; two lungs that touch are cut at their waist. A mask with one lung gives one
    empty mask, and its side is then uncertain. So are the sides of a film that shows the heart on
    the patient's right: it was flipped, or the heart is there; they are never swapped for it.

    Args:
        mask_hw: bool, (rows, columns), both lungs on the source's pixel grid.
        dataset: the source; read are Patient Orientation and View Position.
        grey_hw: (rows, columns), the film with air dark; without it the heart is not looked for.

    Returns:
        The two lungs, disjoint, and how sure their sides are.
    """
    patient = patient_axis(dataset)
    aspect = display_aspect(dataset)
    lower_hw, higher_hw = _two_sides(
        _upright(mask_hw, patient), aspect if patient.axis == 1 else 1.0 / aspect
    )
    certain, evidence = patient.is_certain, patient.evidence
    if not lower_hw.any() or not higher_hw.any():
        certain = False
        evidence += "; only one lung was found, its side is judged by its place on the film"
    elif grey_hw is not None:
        heart = heart_asymmetry(_upright(grey_hw, patient), lower_hw, higher_hw)
        heart_is_right = heart is not None and (heart > 0) != patient.left_is_higher
        if heart is not None and heart_is_right and abs(heart) > CLEAR_HEART_ASYMMETRY:
            certain = False
            evidence += "; the heart lies on the right by this: mirrored film or dextrocardia"

    lower_hw, higher_hw = (_as_stored(side, patient) for side in (lower_hw, higher_hw))
    right_hw, left_hw = (lower_hw, higher_hw) if patient.left_is_higher else (higher_hw, lower_hw)
    return LungMasks(
        right_hw=np.ascontiguousarray(right_hw),
        left_hw=np.ascontiguousarray(left_hw),
        side_is_certain=certain,
        side_evidence=evidence,
    )


def require_lung_pair(mask_hw: NDArray[np.bool_], pixel_aspect: float = 1.0) -> None:
    """Refuse a mask that cannot be the lungs of a frontal chest radiograph.

    Args:
        mask_hw: bool, (rows, columns), both lungs, the film in any quarter turn.
        pixel_aspect: height of a pixel divided by its width.

    Raises:
        ImageRejected: far too little or too much of the film, or no two lungs of credible size.
    """
    share = float(np.count_nonzero(mask_hw)) / mask_hw.size
    if not SMALLEST_LUNGS_SHARE <= share <= LARGEST_LUNGS_SHARE:
        raise ImageRejected(
            RejectionReason.NO_LUNGS, f"lung mask covers {100 * share:.1f} % of the film"
        )
    # Turned a quarter, every single lung is wider than high; there only a gap or waist counts.
    ratio = max(
        _size_ratio(_two_sides(mask_hw, pixel_aspect)),
        _size_ratio(_two_sides(mask_hw.T, 1.0 / pixel_aspect, needs_waist=True)),
    )
    if ratio < SMALLEST_LUNG_RATIO:
        raise ImageRejected(RejectionReason.NO_LUNGS, "the mask is not a pair of lungs")


def patient_axis(dataset: Dataset) -> PatientAxis:
    """Read which way the patient's right and left lie in the image.

    Args:
        dataset: the source.

    Returns:
        From Patient Orientation where it names right or left along exactly one axis, else the
        convention for frontal films, marked uncertain.
    """
    directions = patient_orientation(dataset)
    sideways = [axis for axis, direction in enumerate(directions) if direction[:1] in ("L", "R")]
    if len(sideways) == 1:
        # The first value is the direction of the rows, that is of a rising column index.
        along = sideways[0]
        return PatientAxis(
            axis=1 - along,
            left_is_higher=directions[along][0] == "L",
            feet_are_higher=directions[1 - along][:1] != "H",
            is_certain=True,
            evidence="Patient Orientation " + "/".join(directions),
        )
    stated = "PatientOrientation" in dataset and not dataset["PatientOrientation"].is_empty
    missing = "Patient Orientation is " + ("not usable" if stated else "missing")
    view = str(dataset.get("ViewPosition") or "").strip().upper()
    if view in FRONTAL_VIEW_POSITIONS:
        missing += f", view position {view}"
    return PatientAxis(
        axis=1,
        left_is_higher=True,
        feet_are_higher=True,
        is_certain=False,
        evidence=f"assumed: film shown as if facing the patient ({missing})",
    )


def _upright(image_hw: NDArray[Any], patient: PatientAxis) -> NDArray[Any]:
    """The image with the patient's sides along the rows and the feet below."""
    beside_hw = image_hw if patient.axis == 1 else image_hw.T
    return beside_hw if patient.feet_are_higher else beside_hw[::-1]


def _as_stored(upright_hw: NDArray[Any], patient: PatientAxis) -> NDArray[Any]:
    """The way back from ``_upright``."""
    beside_hw = upright_hw if patient.feet_are_higher else upright_hw[::-1]
    return beside_hw if patient.axis == 1 else beside_hw.T


def _two_sides(
    mask_hw: NDArray[np.bool_], pixel_aspect: float, needs_waist: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Divide a mask into what lies at lower and at higher column indices."""
    labels_hw, sizes = _pieces(mask_hw)
    if not len(sizes):
        return np.zeros_like(mask_hw), np.zeros_like(mask_hw)
    kept_hw = labels_hw > 0
    cut = _cut_between_lungs(kept_hw, pixel_aspect, needs_waist)
    if cut is None:
        return _one_lung(kept_hw)
    lower_share = np.bincount(labels_hw[:, :cut].ravel(), minlength=len(sizes) + 1)[1:] / sizes
    # A piece that the cut crosses well inside is two lungs that touch; any other keeps whole.
    crossed = np.minimum(lower_share, 1 - lower_share) * sizes >= SMALLEST_LUNG_RATIO * (
        sizes.sum() / 2
    )
    whole_lower_hw = np.concatenate([[False], ~crossed & (lower_share >= 0.5)])[labels_hw]
    crossed_hw = np.concatenate([[False], crossed])[labels_hw]
    crossed_hw[:, cut:] = False
    lower_hw = whole_lower_hw | crossed_hw
    return lower_hw, kept_hw & ~lower_hw


def _pieces(
    mask_hw: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Connected pieces without specks: labels (0 outside, then 1, 2, ...) and sizes in pixels."""
    labels_hw, _ = ndimage.label(mask_hw)
    sizes = np.bincount(labels_hw.ravel())[1:]
    kept = sizes >= max(1.0, SMALLEST_PIECE_SHARE * sizes.sum())
    renumbered = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
    return renumbered[labels_hw], sizes[kept]


def _cut_between_lungs(
    mask_hw: NDArray[np.bool_], pixel_aspect: float, needs_waist: bool
) -> int | None:
    """The column that parts two lungs, or None if this is a single lung."""
    profile = mask_hw.sum(axis=0).astype(np.float64)
    columns, rows = np.flatnonzero(profile), np.flatnonzero(mask_hw.any(axis=1))
    first, width = int(columns[0]), int(columns[-1] - columns[0]) + 1
    smooth = ndimage.uniform_filter1d(profile, size=max(1, width // 50), mode="constant")

    waist = _middle_of_lowest(smooth, first, width, WAIST_SEARCH_BAND)
    smaller_share = min(profile[:waist].sum(), profile[waist:].sum()) / profile.sum()
    if profile[waist] == 0 and smaller_share >= SMALLEST_SHARE_BESIDE_GAP:
        return waist
    height = (rows[-1] - rows[0] + 1) * pixel_aspect
    if width < NARROWEST_PAIR * height:
        return None
    lower_peak, higher_peak = smooth[first:waist].max(initial=0), smooth[waist:].max(initial=0)
    is_waist = smooth[waist] <= SHALLOWEST_WAIST * min(lower_peak, higher_peak)
    if is_waist and smaller_share >= SMALLEST_SHARE_BESIDE_WAIST:
        return waist
    if not needs_waist and width > WIDEST_SINGLE_LUNG * height:
        return _middle_of_lowest(smooth, first, width, MIDDLE_BAND)
    return None


def _middle_of_lowest(
    profile: NDArray[np.float64], first: int, width: int, band: tuple[float, float]
) -> int:
    """Middle of the longest stretch where the profile is lowest; a gap is cut at its centre."""
    low = first + int(band[0] * width)
    searched = profile[low : max(low + 1, first + int(band[1] * width))]
    lowest = np.flatnonzero(searched <= searched.min() + 0.5)
    stretches = np.split(lowest, np.flatnonzero(np.diff(lowest) > 1) + 1)
    longest = max(stretches, key=len)
    return low + int(longest[len(longest) // 2])


def _one_lung(
    kept_hw: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A single lung goes to the half of the film where its centre lies."""
    weights = kept_hw.sum(axis=0)
    centre = float(np.average(np.arange(len(weights)), weights=weights))
    empty_hw = np.zeros_like(kept_hw)
    return (kept_hw, empty_hw) if centre < (len(weights) - 1) / 2 else (empty_hw, kept_hw)


def _size_ratio(sides: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> float:
    areas = sorted(int(np.count_nonzero(side_hw)) for side_hw in sides)
    return areas[0] / areas[1] if areas[1] else 0.0
