"""The grey transformations of a source, repeated in a presentation state.

A presentation state that lacked them would show the stored values (PS3.4 N.2.1), and with a
MONOCHROME1 film the negative.
"""

from copy import deepcopy
from typing import Final

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian
from pydicom.valuerep import DS

from dicom_io.pixels import air_is_bright

MODALITY_VALUES: Final = ("RescaleIntercept", "RescaleSlope")
# A softcopy VOI LUT has entries of 8 or 16 bits (PS3.3 C.11.8.1); an image's may have any from 8.
ENTRY_BITS: Final = (8, 16)


def add_grey_transformation(state: Dataset, source: Dataset) -> None:
    """Add modality LUT, softcopy VOI LUT and softcopy presentation LUT to a presentation state.

    Args:
        state: the presentation state; changed in place.
        source: the radiograph that it shows.
    """
    _add_modality_transformation(state, source)
    voi = _voi_transformation(source)
    if voi is not None:
        state.SoftcopyVOILUTSequence = [voi]
    # PS3.3 C.11.6.1.2: the state's shape takes the place of the source's own and of MONOCHROME1.
    state.PresentationLUTShape = "INVERSE" if air_is_bright(source) else "IDENTITY"


def _add_modality_transformation(state: Dataset, source: Dataset) -> None:
    """PS3.3 C.11.1: either a table or slope and intercept."""
    if source.get("ModalityLUTSequence"):
        state.ModalityLUTSequence = _tables(source, "ModalityLUTSequence")[:1]
    elif _decimals(source, "RescaleSlope") and _decimals(source, "RescaleIntercept"):
        for keyword in MODALITY_VALUES:
            state[keyword] = source[keyword]
        state.RescaleType = str(source.get("RescaleType") or "US")


def _voi_transformation(source: Dataset) -> Dataset | None:
    """The first table or window that the source offers (PS3.3 C.11.8); None if it offers none."""
    voi = Dataset()
    if source.get("VOILUTSequence"):
        voi.VOILUTSequence = [
            _with_entries_of_8_or_16_bits(table) for table in _tables(source, "VOILUTSequence")[:1]
        ]
        return voi
    centres, widths = _decimals(source, "WindowCenter"), _decimals(source, "WindowWidth")
    if not centres or not widths or widths[0] < 1:
        return None
    voi.WindowCenter = DS(centres[0], auto_format=True)
    voi.WindowWidth = DS(widths[0], auto_format=True)
    if source.get("VOILUTFunction") in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        voi.VOILUTFunction = source.VOILUTFunction
    return voi


def _tables(source: Dataset, keyword: str) -> list[Dataset]:
    """Copies of LUT items, their 16 bit entries turned to little endian."""
    items = [deepcopy(item) for item in source[keyword].value]
    meta = getattr(source, "file_meta", None)
    for item in items:
        item.remove_private_tags()
        is_big = meta is not None and meta.get("TransferSyntaxUID") == ExplicitVRBigEndian
        if is_big and isinstance(item.LUTData, bytes):
            item.LUTData = np.frombuffer(item.LUTData, dtype=">u2").astype("<u2").tobytes()
    return items


def _with_entries_of_8_or_16_bits(table: Dataset) -> Dataset:
    """Scale the entries of a table to 16 bits where they have another number of bits."""
    bits = int(table.LUTDescriptor[2])
    if bits in ENTRY_BITS:
        return table
    data = table.LUTData
    entries = np.frombuffer(data, dtype="<u2") if isinstance(data, bytes) else np.asarray(data)
    scaled = np.rint(entries.astype(np.float64) * (0xFFFF / (2**bits - 1)))
    table.LUTDescriptor = [*table.LUTDescriptor[:2], 16]
    table.LUTData = np.clip(scaled, 0, 0xFFFF).astype("<u2").tobytes()
    table["LUTData"].VR = "OW"
    return table


def _decimals(source: Dataset, keyword: str) -> list[float]:
    """The finite values of a decimal attribute; none if it is missing or malformed."""
    try:
        value = source.get(keyword)
        values = [] if value is None or value == "" else np.atleast_1d(value).astype(float).tolist()
    except (TypeError, ValueError):
        return []
    return values if np.isfinite(values).all() else []
