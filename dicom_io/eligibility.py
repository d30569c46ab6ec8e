"""Is this a frontal chest radiograph, by what its attributes say of it.

Attributes can only refuse: what they leave open is let through, and the image itself decides later
whether a pair of lungs is in it.
"""

from typing import Final

from pydicom import Dataset

from dicom_io.anatomy_words import (
    name_a_lateral_view,
    name_another_part,
    name_the_chest,
    plain_words,
)
from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.pixels import require_readable_image
from dicom_io.refusal import refusing
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES
from dicom_io.uids import MANUFACTURER_MODEL_NAME

# OT, SC and an empty value are what digitisers and converters write; DR and XR are no DICOM terms,
# but are sent.
CHEST_MODALITIES: Final = frozenset({"CR", "DX", "RG", "DR", "XR", "OT", "SC", ""})
FRONTAL_VIEW_POSITIONS: Final = frozenset({"PA", "AP"})
OTHER_VIEW_POSITIONS: Final = frozenset({
    "LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "LLD", "RLD", "LLO", "RLO",
    "LAO", "RAO", "LPO", "RPO",
})  # fmt: skip
_DESCRIPTIONS: Final = (
    "SeriesDescription",
    "StudyDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "AcquisitionDeviceProcessingDescription",
)


@refusing(RejectionReason.UNREADABLE)
def require_frontal_chest(dataset: Dataset) -> None:
    """Refuse what its attributes show to be anything but a single frontal chest radiograph.

    Args:
        dataset: a DICOM object; its pixel data is not touched.

    Raises:
        ImageRejected: with the first reason found, from identity over kind to content.
    """
    _require_identity(dataset)
    if dataset.get("ManufacturerModelName") == MANUFACTURER_MODEL_NAME:
        raise ImageRejected(RejectionReason.OWN_RESULT)
    if dataset.SOPClassUID not in CHEST_STORAGE_CLASSES:
        name = getattr(dataset.SOPClassUID, "name", "unknown")
        raise ImageRejected(RejectionReason.UNSUPPORTED_CLASS, str(name))
    require_readable_image(dataset)
    _require_chest(dataset)
    _require_frontal(dataset)


def _require_identity(dataset: Dataset) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not dataset.get(keyword):
            raise ImageRejected(RejectionReason.NO_UID, f"{keyword} is empty")


def _require_chest(dataset: Dataset) -> None:
    """The body part decides where it is given; descriptions speak only where it is silent."""
    modality = _text(dataset, "Modality").upper()
    if modality not in CHEST_MODALITIES:
        raise ImageRejected(RejectionReason.NOT_CHEST, f"modality {modality[:16]}")
    body_part = plain_words(
        _text(dataset, "BodyPartExamined"), *_code_meanings(dataset, "AnatomicRegionSequence")
    )
    descriptions = plain_words(
        *(_text(dataset, keyword) for keyword in _DESCRIPTIONS),
        *_code_meanings(dataset, "ProcedureCodeSequence"),
    )
    for words in (body_part, descriptions):
        if name_the_chest(words):
            return
        if name_another_part(words):
            raise ImageRejected(RejectionReason.NOT_CHEST)


def _require_frontal(dataset: Dataset) -> None:
    """View Position decides where it is given; then how the patient lay; then words."""
    view = _text(dataset, "ViewPosition").strip().upper()
    if view in OTHER_VIEW_POSITIONS:
        raise ImageRejected(RejectionReason.NOT_FRONTAL, f"view position {view}")
    if view in FRONTAL_VIEW_POSITIONS:
        return
    orientation = dataset.get("PatientOrientation")
    if orientation and {str(end)[:1] for end in orientation} & {"A", "P"}:
        raise ImageRejected(RejectionReason.NOT_FRONTAL, "by its patient orientation")
    words = plain_words(
        *(_text(dataset, keyword) for keyword in ("SeriesDescription", "ProtocolName")),
        *_code_meanings(dataset, "ViewCodeSequence"),
    )
    if name_a_lateral_view(words):
        raise ImageRejected(RejectionReason.NOT_FRONTAL)


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "")


def _code_meanings(dataset: Dataset, keyword: str) -> list[str]:
    return [str(item.get("CodeMeaning") or "") for item in dataset.get(keyword) or ()]
