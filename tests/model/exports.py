"""Archive exports of drawn films, written as a hospital's archive would hand them over."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dicom_io.archive_writer import create_export, read_manifest
from tests.model.films import draw_film

COLUMNS = "id,image,lung_mask,label,patient,view,sex,age,split,source,licence"


def manifest_row(number: int) -> str:
    """A film of its own patient; every fourth one is of the test split, without a mask."""
    label = "pneumonia" if number % 2 else "normal"
    mask, split = ("", "test") if number % 4 == 3 else (f"mask-{number}.png", "train")
    return f"f{number},film-{number}.png,{mask},{label},p{number},PA,F,40,{split},Clinic,CC0"


def write_export(folder: Path, count: int, row: Callable[[int], str] = manifest_row) -> Path:
    """Write ``count`` drawn films, 128 x 96 pixels, as DX and SEG objects with ``labels.csv``."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for number in range(count):
        film = draw_film(number, pneumonia=bool(number % 2))
        for name, pixels_hw in (("film", film.image_hw), ("mask", film.mask_hw * np.uint8(255))):
            picture = Image.fromarray(pixels_hw).resize((96, 128), Image.Resampling.BOX)
            picture.save(pictures / f"{name}-{number}.png")
    manifest = pictures / "manifest.csv"
    manifest.write_text("\n".join([COLUMNS, *map(row, range(count))]) + "\n")
    export = folder / "export"
    for _ in create_export(read_manifest(manifest), export, jobs=1):
        pass
    return export
