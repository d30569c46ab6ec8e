"""Is this a frontal chest radiograph, by what its attributes say of it.

Attributes can only refuse: what they leave open is let through, and the image itself decides later
whether a pair of lungs is in it.
"""

import re
from typing import Final

from pydicom import Dataset

from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.pixels import require_readable_image
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES
from dicom_io.uids import MANUFACTURER_MODEL_NAME

CHEST_MODALITIES: Final = frozenset({"CR", "DX", "RG", "OT", "SC", ""})

# Word stems as they stand in body parts and descriptions, several languages, without accents.
_CHEST_WORDS: Final = (
    "chest|thora[xckz]|torac|torax|thorakal|lung|lunge|poumon|pulmo|polmon|pulmon|cxr|brustkorb"
)
_OTHER_WORDS: Final = (
    "hip|huft|hanche|cadera|leg|extremity|tibia|fibula|femur|knee|knie|genou|rodilla|foot|feet|"
    "ankle|hand|wrist|finger|elbow|forearm|humerus|shoulder|schulter|clavicle|dental|teeth|tooth|"
    "zahn|panoram|orthopan|jaw|mandible|skull|head|schadel|sinus|orbit|nasal|spine|cspine|tspine|"
    "lspine|lumbar|cervical|sacrum|coccyx|pelvis|becken|abdomen|abdom|kub|breast|mammo|bladder|"
    "urinary|whole ?body|leg ?length|hueft|sternum|rib series"
)
_LATERAL_WORDS: Final = "lateral|lat|seitlich|profil|perfil|oblique|obl|decubitus|lordotic"
_FRONTAL_WORDS: Final = "pa|ap|frontal|posteroanterior|anteroposterior|face"

_CHEST: Final = re.compile(rf"\b(?:{_CHEST_WORDS})")
_OTHER: Final = re.compile(rf"\b(?:{_OTHER_WORDS})")
_LATERAL: Final = re.compile(rf"\b(?:{_LATERAL_WORDS})\b")
_FRONTAL: Final = re.compile(rf"\b(?:{_FRONTAL_WORDS})\b")
_ACCENTS: Final = str.maketrans("áàâäãéèêëíìîïóòôöõúùûüç", "aaaaaeeeeiiiiooooouuuuc")

LATERAL_VIEW_POSITIONS: Final = frozenset(
    {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LATERAL", "LAT"}
)


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
    modality = str(dataset.get("Modality") or "").upper()
    if modality not in CHEST_MODALITIES:
        raise ImageRejected(RejectionReason.NOT_CHEST, f"modality {modality[:16]}")
    for words in (_body_part(dataset), _descriptions(dataset)):
        if _CHEST.search(words):
            return
        if _OTHER.search(words):
            raise ImageRejected(RejectionReason.NOT_CHEST)


def _require_frontal(dataset: Dataset) -> None:
    view = str(dataset.get("ViewPosition") or "").strip().upper()
    if view in LATERAL_VIEW_POSITIONS:
        raise ImageRejected(RejectionReason.NOT_FRONTAL, f"view position {view}")
    if view in ("PA", "AP"):
        return
    words = _words(dataset, ("SeriesDescription", "ProtocolName"))
    words += " " + _code_meanings(dataset, "ViewCodeSequence")
    # "PA and lateral" names the examination, not this film.
    if _LATERAL.search(words) and not _FRONTAL.search(words):
        raise ImageRejected(RejectionReason.NOT_FRONTAL)


def _body_part(dataset: Dataset) -> str:
    return f"{_words(dataset, ('BodyPartExamined',))} " + _code_meanings(
        dataset, "AnatomicRegionSequence"
    )


def _descriptions(dataset: Dataset) -> str:
    keywords = (
        "SeriesDescription",
        "StudyDescription",
        "ProtocolName",
        "RequestedProcedureDescription",
        "PerformedProcedureStepDescription",
    )
    return _words(dataset, keywords)


def _words(dataset: Dataset, keywords: tuple[str, ...]) -> str:
    """Attribute texts in lower case, without accents, punctuation as spaces."""
    text = " ".join(str(dataset.get(keyword) or "") for keyword in keywords)
    return re.sub(r"[\W_]+", " ", text.lower().translate(_ACCENTS))


def _code_meanings(dataset: Dataset, keyword: str) -> str:
    items = dataset.get(keyword) or ()
    meanings = " ".join(str(item.get("CodeMeaning") or "") for item in items)
    return re.sub(r"[\W_]+", " ", meanings.lower().translate(_ACCENTS))
