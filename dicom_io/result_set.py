"""The objects of one reading as a set: which kinds a target gets, and how they refer to each other.

IHE AI Results wants the primitives of a result as separate objects, one series for each kind, that
name each other. Since every UID is derived, each can be named before it is built.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io.errors import SettingsError
from dicom_io.findings import Findings
from dicom_io.presentation_state import build_presentation_state
from dicom_io.report import build_report
from dicom_io.report_codes import PART_OF_SAME_RESULT, private_scheme
from dicom_io.secondary_capture import build_secondary_capture
from dicom_io.segmentation import build_segmentation
from dicom_io.uids import STORAGE_CLASSES, ResultKind, result_uid

DEFAULT_PROFILE: Final = frozenset({ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE})
# What stands in for a kind that a target does not accept; the first accepted one is taken.
FALLBACKS: Final = {
    ResultKind.SEGMENTATION: (ResultKind.PRESENTATION_STATE, ResultKind.SECONDARY_CAPTURE),
    ResultKind.LABEL_MAP_SEGMENTATION: (
        ResultKind.SEGMENTATION,
        ResultKind.PRESENTATION_STATE,
        ResultKind.SECONDARY_CAPTURE,
    ),
    ResultKind.PRESENTATION_STATE: (ResultKind.SECONDARY_CAPTURE,),
    ResultKind.REPORT: (ResultKind.SECONDARY_CAPTURE,),
    ResultKind.SECONDARY_CAPTURE: (),
}
PROFILE_NAMES: Final = {
    "seg": ResultKind.SEGMENTATION,
    "labelmap": ResultKind.LABEL_MAP_SEGMENTATION,
    "sc": ResultKind.SECONDARY_CAPTURE,
    "gsps": ResultKind.PRESENTATION_STATE,
    "sr": ResultKind.REPORT,
}


def profile(names: Collection[str]) -> frozenset[ResultKind]:
    """The kinds of object that a target is to get, by the names used in settings.

    Args:
        names: any of ``seg``, ``labelmap``, ``sc``, ``gsps``, ``sr``.

    Raises:
        SettingsError: no name, or an unknown one.
    """
    unknown = sorted(set(names) - PROFILE_NAMES.keys())
    if unknown or not names:
        raise SettingsError(
            f"a result profile is one or more of {', '.join(PROFILE_NAMES)}; "
            f"got {', '.join(unknown) or 'nothing'}"
        )
    return frozenset(PROFILE_NAMES[name] for name in names)


def deliverable(
    wanted: Collection[ResultKind], accepted_classes: Collection[str]
) -> frozenset[ResultKind]:
    """What of a profile a target takes, with substitutes for what it does not.

    Args:
        wanted: the target's profile.
        accepted_classes: the storage classes that it accepted as presentation contexts.

    Returns:
        The kinds to send; empty if the target takes nothing of them nor any substitute.
    """
    chosen = set()
    for kind in wanted:
        for candidate in (kind, *FALLBACKS[kind]):
            if STORAGE_CLASSES[candidate] in accepted_classes:
                chosen.add(candidate)
                break
    return frozenset(chosen)


def build_result_set(
    source: Dataset,
    display_hw: NDArray[np.uint8],
    findings: Findings,
    created: datetime,
    kinds: Collection[ResultKind] = DEFAULT_PROFILE,
    *,
    replaces_version: str | None = None,
) -> dict[ResultKind, Dataset]:
    """Build the objects of one reading, each referring to those that are made with it.

    Args:
        source: the radiograph that was read.
        display_hw: uint8, (rows, columns), the film as ``pixels.display_image`` gives it.
        findings: what was found in it.
        created: when the result was made.
        kinds: which objects to make.
        replaces_version: the model version whose results these supersede, if any.

    Returns:
        The objects by kind; the same for the same arguments.
    """
    built: dict[ResultKind, Dataset] = {}
    for kind in sorted(kinds, key=_by_value):
        if kind is ResultKind.SECONDARY_CAPTURE:
            built[kind] = build_secondary_capture(
                source, display_hw, findings, created, replaces_version=replaces_version
            )
        elif kind is ResultKind.PRESENTATION_STATE:
            built[kind] = build_presentation_state(
                source, findings, created, replaces_version=replaces_version
            )
        elif kind is ResultKind.REPORT:
            built[kind] = build_report(
                source,
                findings,
                created,
                companions=set(kinds) - {kind},
                replaces_version=replaces_version,
            )
        else:
            built[kind] = build_segmentation(
                source,
                findings,
                created,
                label_map=kind is ResultKind.LABEL_MAP_SEGMENTATION,
                replaces_version=replaces_version,
            )
    _name_each_other(built, source, findings.model.version)
    return built


def _name_each_other(built: dict[ResultKind, Dataset], source: Dataset, version: str) -> None:
    """General Reference (PS3.3 C.12.4) from the secondary capture to segmentation and report.

    The report names its evidence by itself; a segmentation and a presentation state refer to the
    source alone, since viewers load whatever else they name.
    """
    capture = built.get(ResultKind.SECONDARY_CAPTURE)
    if capture is None:
        return
    images = built.keys() & {ResultKind.SEGMENTATION, ResultKind.LABEL_MAP_SEGMENTATION}
    if images:
        capture.ReferencedImageSequence = [
            _reference(source, version, kind)
            for kind in sorted(images, key=lambda kind: kind.value)
        ]
    if ResultKind.REPORT in built:
        capture.ReferencedInstanceSequence = [_reference(source, version, ResultKind.REPORT)]
    if images or ResultKind.REPORT in built:
        capture.CodingSchemeIdentificationSequence = [private_scheme()]


def _reference(source: Dataset, version: str, kind: ResultKind) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = STORAGE_CLASSES[kind]
    reference.ReferencedSOPInstanceUID = result_uid(source.SOPInstanceUID, version, kind)
    reference.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(PART_OF_SAME_RESULT)]
    return reference


def _by_value(kind: ResultKind) -> str:
    return kind.value
