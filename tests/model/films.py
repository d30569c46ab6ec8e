"""Drawn films for the trainer's tests: two dark lungs, with a bright patch where pneumonia is."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.image_table import ImageRecord, ImageTable

SIDE = 256


@dataclass(frozen=True)
class Film:
    """One drawn film: uint8 and 0/1 uint8, both (256, 256)."""

    image_hw: NDArray[np.uint8]
    mask_hw: NDArray[np.uint8]


def draw_film(seed: int, *, pneumonia: bool) -> Film:
    """Draw lungs of a size and place that depend on the seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    top, height = random.uniform(110, 140), random.uniform(65, 85)
    width = random.uniform(32, 42)
    lungs_hw = np.zeros((SIDE, SIDE), dtype=bool)
    for centre in (random.uniform(75, 85), random.uniform(170, 180)):
        lungs_hw |= ((y - top) / height) ** 2 + ((x - centre) / width) ** 2 < 1
    grey_hw = np.where(lungs_hw, 60.0, 170.0)
    if pneumonia:
        patch_hw = ((y - top - 20) / 25) ** 2 + ((x - 80) / 25) ** 2 < 1
        grey_hw = np.where(patch_hw & lungs_hw, 150.0, grey_hw)
    grey_hw += random.normal(0, 8, grey_hw.shape)
    return Film(np.clip(grey_hw, 0, 255).astype(np.uint8), lungs_hw.astype(np.uint8))


def record(number: int, **changes: object) -> ImageRecord:
    """A training record of its own patient, normal where the number is even."""
    facts: dict[str, object] = {
        "sop_instance_uid": f"1.2.3.{number}",
        "path": f"/export/{number}.dcm",
        "mask_paths": (),
        "patient": f"patient-{number}",
        "study_uid": f"1.2.4.{number}",
        "label": "pneumonia" if number % 2 else "normal",
        "split": "train",
        "has_mask": True,
        "source": "A",
        "view": "PA",
        "sex": "F",
        "age_years": 40.0,
        "manufacturer": "Maker",
        "station": "Room 1",
        "sender": "ARCHIVE",
        "rows": SIDE,
        "columns": SIDE,
        "patient_orientation": ("L", "F"),
        "pixel_spacing_mm": None,
    }
    return ImageRecord(**(facts | changes))  # type: ignore[arg-type]


def film_table(count: int, **changes: object) -> ImageTable:
    """``count`` drawn films, every second one with pneumonia."""
    films = [draw_film(number, pneumonia=bool(number % 2)) for number in range(count)]
    return ImageTable(
        records=tuple(record(number, **changes) for number in range(count)),
        images=np.stack([film.image_hw for film in films]),
        masks=np.stack([film.mask_hw for film in films]),
        problems=(),
    )


def blobs(count=6, side=64):
    """Smooth off-centre blobs in [-1, 1] and the masks of their bright halves."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centres = 24 + torch.arange(count) * 2.0
    images = torch.stack(
        [2 * torch.exp(-((y - c) ** 2 + (x - 28) ** 2) / 200) - 1 for c in centres]
    )[:, None]
    return images, (images > 0).float()
