"""UIDs of result objects, derived from what they are made of.

A UID is the ``2.25.`` form of a UUID (PS3.5 B.2). The UUID is of version 8 (RFC 9562, 5.8): 122
bits of a SHA-256 hash of the names that determine the object. So the same source, model version
and kind give the same UID on every machine and in every run, and a rerun replaces instead of adds.
"""

import hashlib
from enum import Enum
from typing import Final

from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

MANUFACTURER: Final = "MultiMix"
MANUFACTURER_MODEL_NAME: Final = "MultiMix node"
IMPLEMENTATION_VERSION_NAME: Final = "MULTIMIX_0_1"

LabelMapSegmentationStorage: Final = UID("1.2.840.10008.5.1.4.1.1.66.7")

_SPACE: Final = "multimix-node"


class ResultKind(Enum):
    """The kinds of object that a reading produces; one series in the study for each."""

    SEGMENTATION = "segmentation"
    LABEL_MAP_SEGMENTATION = "label map segmentation"
    SECONDARY_CAPTURE = "secondary capture"
    PRESENTATION_STATE = "presentation state"
    REPORT = "report"


STORAGE_CLASSES: Final = {
    ResultKind.SEGMENTATION: SegmentationStorage,
    ResultKind.LABEL_MAP_SEGMENTATION: LabelMapSegmentationStorage,
    ResultKind.SECONDARY_CAPTURE: SecondaryCaptureImageStorage,
    ResultKind.PRESENTATION_STATE: GrayscaleSoftcopyPresentationStateStorage,
    ResultKind.REPORT: ComprehensiveSRStorage,
}


def derived_uid(*names: str) -> UID:
    """Derive a UID from an ordered list of names.

    Args:
        names: what determines the object; each name is hashed with its length, so that
            ``("ab", "c")`` and ``("a", "bc")`` differ.

    Returns:
        A UID of at most 44 characters, equal for equal names.
    """
    digest = hashlib.sha256()
    for name in (_SPACE, *names):
        encoded = name.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    bits = int.from_bytes(digest.digest()[:16], "big")
    bits = bits & ~(0xF << 76) | (8 << 76)  # version 8: derived from a hash of our choice
    bits = bits & ~(0b11 << 62) | (0b10 << 62)  # the variant of RFC 9562
    return UID(f"2.25.{bits}")


IMPLEMENTATION_CLASS_UID: Final = derived_uid("implementation class")


def result_uid(source_sop_instance_uid: str, model_version: str, kind: ResultKind) -> UID:
    """SOP Instance UID of a result.

    Args:
        source_sop_instance_uid: the radiograph that was read.
        model_version: version of the model that read it.
        kind: which object of the result this is.

    Returns:
        The same UID for the same arguments, always.
    """
    return derived_uid("instance", source_sop_instance_uid, model_version, kind.value)


def result_series_uid(study_uid: str, model_version: str, kind: ResultKind) -> UID:
    """Series Instance UID of all results of one kind that one model version adds to a study."""
    return derived_uid("series", study_uid, model_version, kind.value)


def tracking_uid(source_sop_instance_uid: str, structure: str) -> UID:
    """Tracking UID (PS3.3 C.8.20.2) of one structure in one radiograph.

    It does not depend on the model version: a new model's right lung is still the same lung.

    Args:
        source_sop_instance_uid: the radiograph that shows the structure.
        structure: what is tracked, e.g. ``right lung``.

    Returns:
        The same UID for the same arguments, always.
    """
    return derived_uid("tracking", source_sop_instance_uid, structure)


def dimension_organization_uid(sop_instance_uid: str) -> UID:
    """Dimension Organization UID (PS3.3 C.7.6.17) of the segmentation ``sop_instance_uid``."""
    return derived_uid("dimension organization", sop_instance_uid)
