"""The objects of one reading as a set, and how they refer to each other.

IHE AI Results wants the primitives of a result as separate objects, one series for each kind, that
name each other. Since every UID is derived, each can be named before it is built.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType

import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_io.findings import Findings
from dicom_io.presentation_state import build_presentation_state
from dicom_io.report import build_report
from dicom_io.report_codes import PART_OF_SAME_RESULT, private_scheme
from dicom_io.result_profile import DEFAULT_PROFILE
from dicom_io.secondary_capture import build_secondary_capture
from dicom_io.segmentation import build_segmentation
from dicom_io.uids import STORAGE_CLASSES, ResultKind, result_uid


def build_result_set(
    source: Dataset,
    display_hw: NDArray[np.uint8],
    findings: Findings,
    created: datetime,
    kinds: Collection[ResultKind] = DEFAULT_PROFILE,
    *,
    spares: Collection[ResultKind] = (),
    replaces: Mapping[ResultKind, str] = MappingProxyType({}),
    predecessor_version: str | None = None,
) -> dict[ResultKind, Dataset]:
    """Build the objects of one reading, each referring to those that are made with it.

    Args:
        source: the radiograph that was read.
        display_hw: uint8, (rows, columns), the film as ``pixels.display_image`` gives it.
        findings: what was found in it.
        created: when the result was made.
        kinds: which objects to make.
        spares: further objects to make, which no other refers to, since they are sent only where
            another is not accepted.
        replaces: for each kind of which the study has an older series, the version of the model
            that made it. A series has one description, so it counts for all films of the study.
        predecessor_version: the version of the model that made an older report of this very film.

    Returns:
        The objects by kind; the same for the same arguments.
    """
    built: dict[ResultKind, Dataset] = {}
    for kind in ResultKind:
        if kind not in kinds and kind not in spares:
            continue
        older = replaces.get(kind)
        if kind is ResultKind.SECONDARY_CAPTURE:
            built[kind] = build_secondary_capture(
                source, display_hw, findings, created, replaces_version=older
            )
        elif kind is ResultKind.PRESENTATION_STATE:
            built[kind] = build_presentation_state(
                source, findings, created, replaces_version=older
            )
        elif kind is ResultKind.REPORT:
            built[kind] = build_report(
                source,
                findings,
                created,
                companions=set(kinds) - {kind},
                replaces_version=older,
                predecessor_version=predecessor_version,
            )
        else:
            built[kind] = build_segmentation(
                source,
                findings,
                created,
                label_map=kind is ResultKind.LABEL_MAP_SEGMENTATION,
                replaces_version=older,
            )
    if ResultKind.SECONDARY_CAPTURE in built:
        capture = built[ResultKind.SECONDARY_CAPTURE]
        _name_companions(capture, kinds, source, findings.model.version)
    return built


def _name_companions(
    capture: Dataset, kinds: Collection[ResultKind], source: Dataset, version: str
) -> None:
    """General Reference (PS3.3 C.12.4) from the secondary capture to segmentation and report.

    The report names its evidence by itself; a segmentation and a presentation state refer to the
    source alone, since viewers load whatever else they name.
    """
    images = set(kinds) & {ResultKind.SEGMENTATION, ResultKind.LABEL_MAP_SEGMENTATION}
    if images:
        capture.ReferencedImageSequence = [
            _reference(source, version, kind)
            for kind in sorted(images, key=lambda kind: kind.value)
        ]
    if ResultKind.REPORT in kinds:
        capture.ReferencedInstanceSequence = [_reference(source, version, ResultKind.REPORT)]
    if images or ResultKind.REPORT in kinds:
        capture.CodingSchemeIdentificationSequence = [private_scheme()]


def _reference(source: Dataset, version: str, kind: ResultKind) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = STORAGE_CLASSES[kind]
    reference.ReferencedSOPInstanceUID = result_uid(source.SOPInstanceUID, version, kind)
    reference.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(PART_OF_SAME_RESULT)]
    return reference
