"""What the header of a DICOM Segmentation says: which segments are lung, drawn on which images."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from pydicom import Dataset
from pydicom.uid import UID, SegmentationStorage

LABEL_MAP_SEGMENTATION_STORAGE: Final = UID("1.2.840.10008.5.1.4.1.1.66.7")
SEGMENTATION_CLASSES: Final = (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE)

# SNOMED CT: lung, right, left, both, entire; the lobes; then lung, right and left in SNOMED RT.
_LUNG_CODES: Final = frozenset({
    "39607008", "3341006", "44029006", "74101002", "181216001",
    "31094006", "45653009", "90572001", "40020002", "72481006", "266005", "44714003", "41224006",
    "T-28000", "T-28100", "T-28500",
})  # fmt: skip
# A category of these holds lesions: "left lung" is then where the lesion is, not what is outlined.
_ABNORMALITY_CODES: Final = frozenset({"49755003", "M-01000"})
_LUNG_WORD: Final = re.compile(
    "lungs?|pulmo(n|nes|es)?|pulmao|lungen?|lungenflugel|poumons?|polmon[ei]|long(en)?"
)
# What may stand beside a lung word without turning it into something else, as "nodule" would.
_COMPANION_WORD: Final = re.compile(
    "left|right|both|l|r|lt|rt|upper|middle|lower|lobes?|fields?|of|the|and|structure|body|entire|"
    "whole|mask|segmentation|ai|auto|manual|beide|links|rechts|linke[rs]?|rechte[rs]?|les|deux|"
    "droit|gauche|destro|sinistro|derecho|izquierdo|direito|esquerdo"
)


def lung_segments(segmentation: Dataset) -> frozenset[int]:
    """Numbers of the segments that are lung, or a lobe of it, by code or by words.

    Args:
        segmentation: a Segmentation or Label Map Segmentation; its pixel data is not needed.
    """
    return frozenset(
        int(segment.SegmentNumber)
        for segment in segmentation.get("SegmentSequence") or ()
        if _is_lung(segment)
    )


def referenced_images(segmentation: Dataset) -> frozenset[str]:
    """SOP Instance UIDs of the images that a SEG says it was drawn on.

    They may stand in the Common Instance Reference Module (PS3.3 C.12.2), in the frames'
    Derivation Image Sequence (C.7.6.16.2.6), or in a Source Image Sequence of old producers.
    """
    found: set[str] = set()
    for series in segmentation.get("ReferencedSeriesSequence") or ():
        for instance in series.get("ReferencedInstanceSequence") or ():
            found.add(str(instance.get("ReferencedSOPInstanceUID", "")))
    for groups in groups_of_frames(segmentation):
        found |= sources_of_frame(groups)
    for item in segmentation.get("SourceImageSequence") or ():
        found.add(str(item.get("ReferencedSOPInstanceUID", "")))
    return frozenset(found - {""})


def groups_of_frames(segmentation: Dataset) -> list[list[Dataset]]:
    """For each frame the functional groups that hold for it: its own, then the shared ones."""
    shared = list(segmentation.get("SharedFunctionalGroupsSequence") or ())
    own = segmentation.get("PerFrameFunctionalGroupsSequence") or ()
    return [[frame, *shared] for frame in own] or ([shared] if shared else [])


def sources_of_frame(groups: Sequence[Dataset]) -> set[str]:
    """SOP Instance UIDs that the functional groups of one frame say it was derived from."""
    return {
        str(source.get("ReferencedSOPInstanceUID", ""))
        for group in groups
        for derivation in group.get("DerivationImageSequence") or ()
        for source in derivation.get("SourceImageSequence") or ()
    }


def segment_of_frame(groups: Sequence[Dataset]) -> int | None:
    """Segment number of one frame, or None where its functional groups do not say."""
    for group in groups:
        for item in group.get("SegmentIdentificationSequence") or ():
            return int(item.ReferencedSegmentNumber)
    return None


def _is_lung(segment: Dataset) -> bool:
    categories = segment.get("SegmentedPropertyCategoryCodeSequence") or ()
    if any(str(code.get("CodeValue", "")) in _ABNORMALITY_CODES for code in categories):
        return False
    types = segment.get("SegmentedPropertyTypeCodeSequence") or ()
    if any(str(code.get("CodeValue", "")) in _LUNG_CODES for code in types):
        return True
    names = [str(code.get("CodeMeaning", "")) for code in types]
    return any(_names_a_lung(name) for name in (*names, str(segment.get("SegmentLabel", ""))))


def _names_a_lung(name: str) -> bool:
    """Whether the words name a lung and nothing else: "Right_Lung 2", but no "lung nodule"."""
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z]+", plain)
    others = [word for word in words if not _LUNG_WORD.fullmatch(word)]
    return len(others) < len(words) and all(map(_COMPANION_WORD.fullmatch, others))
