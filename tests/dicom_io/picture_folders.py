"""Image folders with a manifest, their pictures and masks drawn as phantoms."""

from pathlib import Path

import numpy as np
from PIL import Image

from dicom_io.archive_writer import Created, create_export
from dicom_io.manifest import read_manifest
from dicom_io.phantom import draw_phantom

COLUMNS = "id,image,lung_mask,label,findings,patient,view,sex,age,split,source,licence"
ROWS = (
    "a,images/a.png,masks/a.png,normal,,p1,PA,M,52,train,Clinic A,CC0",
    "b,images/b.png,,pneumonia,,p2,AP Supine,F,1-5 years,test,Clinic A,CC0",
    "c,images/c.png,masks/c.png,,,p3,,,,train,Clinic B,CC0",
)


def picture_folder(folder: Path, rows: tuple[str, ...] = ROWS) -> Path:
    """Write a manifest, and picture and mask number n as the phantom of seed n."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number, row in enumerate(rows):
        phantom = draw_phantom(number, 120, 96)
        name = f"{row.partition(',')[0]}.png"
        grey_hw = (phantom.stored_hw // 16).astype(np.uint8)
        Image.fromarray(grey_hw).save(folder / "images" / name)
        Image.fromarray(phantom.lungs_hw.astype(np.uint8) * 255).save(folder / "masks" / name)
    (folder / "manifest.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    return folder


def create(folder: Path, out: Path) -> Created:
    """Run the writer to its end, in this process."""
    writing = create_export(read_manifest(folder), out, jobs=1)
    while True:
        try:
            next(writing)
        except StopIteration as end:
            created: Created = end.value
            return created
