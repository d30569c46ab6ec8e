"""Radiographs as vendors send them, drawn small, and what a network would find in them.

The film is a chest: dark lungs (the right one larger and higher), bright mediastinum, a bright
patch in the right lower zone. Every source is written to bytes and read back, so that tests meet
what a receiver meets: raw elements in the transfer syntax and character set of the sender.
"""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from dicom_io.findings import Findings, ModelIdentity, Verdict
from dicom_io.laterality import split_lungs

ROWS, COLUMNS = 160, 132
MODEL = ModelIdentity("MultiMix", "0.1.0", "3fa9c1" + "0b" * 29)

Change = Callable[[Dataset], None]


def lungs_at(rows: int, columns: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The lung at the image's left side and the one at its right side, bool, (rows, columns)."""
    y, x = np.mgrid[:rows, :columns]
    y, x = (y + 0.5) / rows, (x + 0.5) / columns
    at_left = ((x - 0.29) / 0.16) ** 2 + ((y - 0.42) / 0.30) ** 2 < 1
    at_right = ((x - 0.72) / 0.13) ** 2 + ((y - 0.47) / 0.30) ** 2 < 1
    return at_left, at_right


def film(rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.float64]:
    """Grey in [0, 1], (rows, columns); 0 is air."""
    y, x = np.mgrid[:rows, :columns]
    y, x = (y + 0.5) / rows, (x + 0.5) / columns
    at_left, at_right = lungs_at(rows, columns)
    grey = np.clip(1.15 - 1.1 * np.abs(x - 0.5) ** 1.5 - 0.2 * y, 0, 1) * 0.85
    grey[at_left | at_right] *= 0.35
    grey += 0.3 * np.exp(-(((x - 0.3) / 0.06) ** 2) - ((y - 0.6) / 0.06) ** 2)
    grey += 0.02 * np.sin(40 * y)
    return np.clip(grey, 0, 1)


def radiograph(
    *changes: Change,
    sop_class: str = DigitalXRayImageStorageForPresentation,
    transfer_syntax: str = ExplicitVRLittleEndian,
    bits: int = 12,
    signed: bool = False,
    photometric: str = "MONOCHROME2",
    rows: int = ROWS,
    columns: int = COLUMNS,
    uid: str = "1.2.826.0.1.3680043.8.498.1",
) -> Dataset:
    """A chest film as read from a file: complete and regular before ``changes`` are applied."""
    dataset = _common(sop_class, uid)
    _add_pixels(dataset, film(rows, columns), bits, signed, photometric, transfer_syntax)
    for change in changes:
        change(dataset)
    return _read_back(dataset, transfer_syntax)


def _common(sop_class: str, uid: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = f"{uid}.3"
    dataset.StudyInstanceUID = f"{uid}.1"
    dataset.SeriesInstanceUID = f"{uid}.2"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Jürgen"
    dataset.PatientID = "4711"
    dataset.IssuerOfPatientID = "HOSPITAL"
    dataset.PatientBirthDate = "19610405"
    dataset.PatientSex = "M"
    dataset.PatientAge = "065Y"
    dataset.StudyDate, dataset.StudyTime = "20261120", "081500"
    dataset.StudyID = "S77"
    dataset.AccessionNumber = "A-2026-1"
    dataset.StudyDescription = "Thorax p.a."
    dataset.ReferringPhysicianName = "Haus^Gregor"
    dataset.Modality = "CR" if sop_class == ComputedRadiographyImageStorage else "DX"
    dataset.Manufacturer = "Example Röntgen"
    dataset.ManufacturerModelName = "Detector 9"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 3
    dataset.ImagerPixelSpacing = [2.5, 2.5]
    dataset.PixelSpacing = [2.4, 2.4]
    dataset.PixelSpacingCalibrationType = "GEOMETRY"
    if sop_class == SecondaryCaptureImageStorage:
        dataset.ConversionType = "DF"
    if sop_class == DigitalXRayImageStorageForProcessing:
        dataset.PresentationIntentType = "FOR PROCESSING"
    return dataset


def _add_pixels(
    dataset: Dataset,
    grey: NDArray[np.float64],
    bits: int,
    signed: bool,
    photometric: str,
    transfer_syntax: str,
) -> None:
    if photometric == "MONOCHROME1":
        grey = 1.0 - grey
    values = np.rint(grey * (2**bits - 1)).astype(np.int64) - (2 ** (bits - 1) if signed else 0)
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    content = values.astype(order + kind).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if bits <= 8 else "OW"


def _read_back(dataset: Dataset, transfer_syntax: str) -> Dataset:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


def without(*keywords: str) -> Change:
    """The attributes are missing."""

    def change(dataset: Dataset) -> None:
        for keyword in keywords:
            if keyword in dataset:
                del dataset[keyword]

    return change


def given(**attributes: object) -> Change:
    """The attributes have these values."""

    def change(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def with_raw_name(
    raw_name: bytes, character_set: str | list[str] | None, uid: str = "1.2.826.0.1.3680043.8.498.1"
) -> Dataset:
    """A film whose patient's name stands in these very bytes, past any library's encoder."""
    source = radiograph(
        given(SpecificCharacterSet=character_set, PatientName="X", Manufacturer="Example"), uid=uid
    )
    raw = source._dict[0x00100010]
    source._dict[0x00100010] = raw._replace(value=raw_name, length=len(raw_name))
    return source


def _voi_lut(dataset: Dataset) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = np.rint(4095 * (np.arange(4096) / 4095) ** 1.4).astype("<u2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    table.LUTExplanation = "SOFT"
    dataset.VOILUTSequence = [table]


def _modality_lut(dataset: Dataset) -> None:
    without("RescaleIntercept", "RescaleSlope", "RescaleType")(dataset)
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.arange(4096) * 16).astype("<u2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    table.ModalityLUTType = "US"
    dataset.ModalityLUTSequence = [table]


def _overlay_plane(dataset: Dataset) -> None:
    dataset.add_new(0x60000010, "US", int(dataset.Rows))
    dataset.add_new(0x60000011, "US", int(dataset.Columns))
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60000102, "US", 0)
    dataset.add_new(0x60003000, "OW", b"\xff" * (int(dataset.Rows) * int(dataset.Columns) // 8))


def _private(dataset: Dataset) -> None:
    block = dataset.private_block(0x0009, "EXAMPLE 1.0", create=True)
    block.add_new(0x01, "LO", "private^text")
    block.add_new(0x02, "OB", b"\1\2\3\4")


TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber",
    "Manufacturer", "PatientOrientation", "BodyPartExamined", "ViewPosition",
)  # fmt: skip
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "PixelSpacingCalibrationType")

# Everything that the result builders must take, each by the name that a failing test shows.
SOURCES: dict[str, Callable[[], Dataset]] = {
    "dx 12 bit": radiograph,
    "dx for processing": lambda: radiograph(sop_class=DigitalXRayImageStorageForProcessing),
    "cr 10 bit": lambda: radiograph(sop_class=ComputedRadiographyImageStorage, bits=10),
    "secondary capture 8 bit": lambda: radiograph(
        given(PixelSpacing=[0.3, 0.3]),
        without("ImagerPixelSpacing", "PixelSpacingCalibrationType"),
        sop_class=SecondaryCaptureImageStorage,
        bits=8,
    ),
    "monochrome1 14 bit": lambda: radiograph(bits=14, photometric="MONOCHROME1"),
    "15 bit": lambda: radiograph(bits=15),
    "16 bit": lambda: radiograph(bits=16),
    "signed 16 bit": lambda: radiograph(bits=16, signed=True),
    "signed 12 bit monochrome1": lambda: radiograph(
        bits=12, signed=True, photometric="MONOCHROME1"
    ),
    "one window": lambda: radiograph(given(WindowCenter="2000", WindowWidth="3000")),
    "several windows": lambda: radiograph(
        given(
            WindowCenter=["2000", "1500"],
            WindowWidth=["3800", "2000"],
            WindowCenterWidthExplanation=["NORMAL", "HARD"],
        )
    ),
    "voi lut": lambda: radiograph(_voi_lut),
    "modality lut": lambda: radiograph(_modality_lut),
    "padding": lambda: radiograph(given(PixelPaddingValue=0)),
    "overlay plane": lambda: radiograph(_overlay_plane),
    "private tags": lambda: radiograph(_private),
    "missing type 2": lambda: radiograph(without(*TYPE_2)),
    "empty type 2": lambda: radiograph(given(**dict.fromkeys(TYPE_2, ""))),
    "implicit little endian": lambda: radiograph(transfer_syntax=ImplicitVRLittleEndian),
    "explicit big endian": lambda: radiograph(transfer_syntax=ExplicitVRBigEndian),
    "frame of reference": lambda: radiograph(
        given(FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.9", PositionReferenceIndicator="")
    ),
    "only imager spacing": lambda: radiograph(
        without("PixelSpacing", "PixelSpacingCalibrationType")
    ),
    "no spacing": lambda: radiograph(without(*SPACINGS)),
    "not square pixels": lambda: radiograph(
        given(PixelSpacing=[1.2, 2.4], ImagerPixelSpacing=[1.25, 2.5]), rows=320
    ),
    "mirrored": lambda: radiograph(given(PatientOrientation=["R", "F"])),
    "lossy": lambda: radiograph(
        given(
            LossyImageCompression="01",
            LossyImageCompressionRatio="12.7",
            LossyImageCompressionMethod="ISO_10918_1",
        )
    ),
    "values that break their rules": lambda: radiograph(
        given(
            PatientAge="65",
            StudyDate="2026.11.20",
            StudyTime="08:15:00",
            PatientSex="male",
            ProcedureCodeSequence=[Dataset()],
        )
    ),
}


def findings_in(
    source: Dataset,
    probability: float = 0.87,
    operating_point: float = 0.42,
    model: ModelIdentity = MODEL,
) -> Findings:
    """What a network finds in a source of this module."""
    rows, columns = int(source.Rows), int(source.Columns)
    at_left, at_right = lungs_at(rows, columns)
    y, x = np.mgrid[:rows, :columns]
    distance = ((x / columns - 0.3) / 0.12) ** 2 + ((y / rows - 0.6) / 0.1) ** 2
    return Findings(
        model=model,
        verdict=Verdict.PNEUMONIA if probability >= operating_point else Verdict.NORMAL,
        probability=probability,
        operating_point=operating_point,
        lungs=split_lungs(at_left | at_right, source),
        saliency_hw=np.exp(-distance).astype(np.float32),
    )
