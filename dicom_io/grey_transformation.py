"""The grey transformations of a source, repeated in a presentation state.

A presentation state that lacked them would show the stored values (PS3.4 N.2.1), and with a
MONOCHROME1 film the negative.
"""

from copy import deepcopy

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import DS

from dicom_io.grey_parameters import LINEAR, rescale_of, window_of
from dicom_io.lookup_table import entries_of
from dicom_io.pixels import air_is_bright


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
    rescale = rescale_of(source)
    if source.get("ModalityLUTSequence"):
        # Its entries are the values to which the VOI LUT refers: they stay what they are.
        state.ModalityLUTSequence = [_in_words(source, "ModalityLUTSequence", scale=False)]
    elif rescale is not None:
        state.RescaleSlope = DS(rescale.slope, auto_format=True)
        state.RescaleIntercept = DS(rescale.intercept, auto_format=True)
        state.RescaleType = str(source.get("RescaleType") or "US")


def _voi_transformation(source: Dataset) -> Dataset | None:
    """The first table or window that the source offers (PS3.3 C.11.8); None if it offers none."""
    voi = Dataset()
    if source.get("VOILUTSequence"):
        voi.VOILUTSequence = [_in_words(source, "VOILUTSequence", scale=True)]
        return voi
    window = window_of(source)
    if window is None:
        return None
    voi.WindowCenter = DS(window.centre, auto_format=True)
    voi.WindowWidth = DS(window.width, auto_format=True)
    if window.function != LINEAR:
        voi.VOILUTFunction = window.function
    return voi


def _in_words(source: Dataset, keyword: str, *, scale: bool) -> Dataset:
    """A copy of the first table of a sequence with entries of 16 bits, in little endian.

    A presentation state's have 8 or 16 bits (PS3.3 C.11.8.1); an image's may have any from 8.

    Args:
        source: with the sequence.
        keyword: of the sequence.
        scale: stretch the entries to the whole of 16 bits, as what is shown is relative to it.
    """
    table: Dataset = deepcopy(source[keyword].value[0])
    table.remove_private_tags()
    entries_n = entries_of(source, keyword).astype(np.float64)
    if scale:
        entries_n *= 0xFFFF / (2 ** int(table.LUTDescriptor[2]) - 1)
    table.LUTDescriptor = [*table.LUTDescriptor[:2], 16]
    table.LUTData = np.clip(np.rint(entries_n), 0, 0xFFFF).astype("<u2").tobytes()
    table["LUTData"].VR = "OW"
    return table
