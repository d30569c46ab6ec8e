"""The images of archive exports as one table of network inputs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dicom_io.pixels import PREPROCESSING_VERSION, Radiograph, map_on_source, network_image
from model.network import CLASSES, as_network_input
from model.stored_rows import StoredRows

TABLE_SIDE = 256

ImageRows = NDArray[np.uint8] | StoredRows
"""Images in memory, or on disk until a row is asked for."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of the table: what training, evaluation and the card need to know of it.

    Attributes:
        sop_instance_uid: of the image.
        path: of the image's file.
        mask_paths: of its SEG files.
        patient: Patient ID; never leaves this process.
        study_uid: Study Instance UID, or empty.
        label: ``normal``, ``pneumonia`` or None.
        split: as the export says, or None.
        has_mask: whether a lung mask was read.
        source: institution, as the export says.
        view: ``PA``, ``AP``, ``AP Supine`` or empty.
        sex: ``M``, ``F`` or empty.
        age_years: or None.
        manufacturer: or empty.
        station: name of the machine, or empty.
        sender: application entity that the file came from, or empty.
        rows: of the source image.
        columns: of the source image.
        patient_orientation: where rows and columns run to, e.g. ``("L", "F")``; or empty.
        pixel_spacing_mm: row and column spacing, or None where it is not calibrated.
    """

    sop_instance_uid: str
    path: str
    mask_paths: tuple[str, ...]
    patient: str
    study_uid: str
    label: str | None
    split: str | None
    has_mask: bool
    source: str
    view: str
    sex: str
    age_years: float | None
    manufacturer: str
    station: str
    sender: str
    rows: int
    columns: int
    patient_orientation: tuple[str, ...]
    pixel_spacing_mm: tuple[float, float] | None

    @property
    def class_index(self) -> int:
        """0 for normal, 1 for pneumonia, -1 where unlabelled."""
        return CLASSES.index(self.label) if self.label in CLASSES else -1

    @property
    def person(self) -> str:
        """Who the film is of: a Patient ID, whatever institution is written beside it.

        One institution may be written in many ways. Two people of the same number count as one,
        which keeps a few films more on one side of a division. Where an archive has taken the
        Patient ID away the films of a study are still of one person.
        """
        return self.patient or self.study_uid or self.sop_instance_uid

    @property
    def grid_spacing_mm(self) -> tuple[float, float] | None:
        """Row and column spacing of the film once it is stretched to the table's grid.

        Returns:
            None where the film's own spacing is not calibrated; mostly anisotropic otherwise.
        """
        if self.pixel_spacing_mm is None:
            return None
        rows_mm, columns_mm = self.pixel_spacing_mm
        return rows_mm * self.rows / TABLE_SIDE, columns_mm * self.columns / TABLE_SIDE


@dataclass(frozen=True)
class ImageTable:
    """All images of one or several exports, ready for the network.

    Attributes:
        records: one for each image.
        images: uint8, (images, 256, 256).
        masks: uint8 0 or 1, (images, 256, 256); zero where there is no mask.
        problems: (path, reason) of each file that could not be used.
    """

    records: tuple[ImageRecord, ...]
    images: ImageRows
    masks: ImageRows
    problems: tuple[tuple[str, str], ...]

    def content_hash(self, indices: Sequence[int]) -> str:
        """SHA-256 over pixels, masks and labels of some rows, independent of paths."""
        digest = hashlib.sha256(PREPROCESSING_VERSION.encode())
        for index in indices:
            digest.update(self.images[index].tobytes())
            digest.update(self.masks[index].tobytes())
            digest.update(str(self.records[index].label).encode())
        return digest.hexdigest()

    def tensors(self, indices: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1] and masks in {0, 1}, float32, (n, 1, side, side)."""
        images = as_network_input(torch.from_numpy(self.images[np.asarray(indices)]))
        if side != TABLE_SIDE:
            images = F.interpolate(images, (side, side), mode="area")
        return images, torch.from_numpy(self.masks_at(indices, side))[:, None].float()

    def images_at(self, indices: Sequence[int], side: int) -> NDArray[np.uint8]:
        """Images of a smaller side, uint8, (n, side, side)."""
        return shrunk_images(self.images[np.asarray(indices)], side)

    def masks_at(self, indices: Sequence[int], side: int) -> NDArray[np.uint8]:
        """Masks of a smaller side, uint8 0 or 1, (n, side, side); lung where most of a pixel is."""
        masks = self.masks[np.asarray(indices)]
        return masks if side == TABLE_SIDE else (_shrunk(masks, side) > 0.5).byte().numpy()


def lungs_on_table(probability_hw: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The lungs that a network found, on the grid that masks are scored on.

    A network of 128 px scored on its own grid, against masks shrunk to it, would be spared the
    outlines that it cannot draw, and its distances in pixels would be half of those of 256 px.

    Args:
        probability_hw: float32 in [0, 1], on the network's grid.

    Returns:
        bool, (256, 256).
    """
    return map_on_source(probability_hw, TABLE_SIDE, TABLE_SIDE) >= 0.5


def served_image(radiograph: Radiograph, side: int) -> NDArray[np.uint8]:
    """A film as ``ImageTable.images_at`` gives it: what a model of this side has learnt from.

    Args:
        radiograph: a decoded radiograph.
        side: the model's ``input_side``.

    Returns:
        uint8, (side, side).
    """
    image_hw = network_image(radiograph, max(side, TABLE_SIDE))
    return image_hw if side > TABLE_SIDE else shrunk_images(image_hw[None], side)[0]


def shrunk_images(images_nhw: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images of the table's side at a smaller one, uint8, (n, side, side)."""
    if side == TABLE_SIDE:
        return images_nhw
    return _shrunk(images_nhw, side).round().byte().numpy()


def _shrunk(images_nhw: NDArray[np.uint8], side: int) -> Tensor:
    """float, (n, side, side): each pixel the mean of what it covers."""
    pixels = torch.from_numpy(images_nhw)[:, None].float()
    return F.interpolate(pixels, (side, side), mode="area")[:, 0]
