"""Content items of structured reports: names and values as codes, and the images referred to.

The content tree is described in PS3.3 C.17.3. Nothing here trusts that an item is complete.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pydicom import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExtensibleSRStorage,
)

from dicom_io.finding_codes import ConceptKey
from dicom_io.lung_segments import SEGMENTATION_CLASSES

REPORT_CLASSES: Final = (
    BasicTextSRStorage,
    EnhancedSRStorage,
    ComprehensiveSRStorage,
    Comprehensive3DSRStorage,
    ExtensibleSRStorage,
)
_NO_IMAGES: Final = (*SEGMENTATION_CLASSES, *REPORT_CLASSES)
# Older names of SNOMED schemes (PS3.16 8), and its object identifier.
_SCHEMES: Final = {"SNM3": "SRT", "99SDM": "SRT", "2.16.840.1.113883.6.96": "SCT"}


def subtree(item: Dataset) -> Iterator[Dataset]:
    """An item and everything below it."""
    waiting = [item]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(children_of(found))


def children_of(item: Dataset) -> Sequence[Dataset]:
    """The items right below an item, or below the report."""
    return item.get("ContentSequence") or ()


def name_of(item: Dataset) -> ConceptKey | None:
    """Concept Name of an item."""
    return _key(item.get("ConceptNameCodeSequence"))


def value_of(item: Dataset) -> ConceptKey | None:
    """Value of a CODE item; None for any other."""
    return _key(item.get("ConceptCodeSequence"))


def _key(codes: Sequence[Dataset] | None) -> ConceptKey | None:
    """Scheme and value of a coded entry (PS3.3 8.8), the scheme by its present name."""
    if not codes:
        return None
    value = str(codes[0].get("CodeValue") or codes[0].get("LongCodeValue") or "").strip()
    scheme = str(codes[0].get("CodingSchemeDesignator") or "").strip().upper()
    return _SCHEMES.get(scheme, scheme), value


def evidence(report: Dataset, keyword: str) -> frozenset[str]:
    """Instances of a hierarchical reference (PS3.3 C.17.2.1)."""
    return frozenset(
        uid
        for study in report.get(keyword) or ()
        for series in study.get("ReferencedSeriesSequence") or ()
        for uid in _instances(series)
    )


def images_named(items: Iterable[Dataset]) -> frozenset[str]:
    """SOP Instance UIDs of the images that IMAGE items refer to."""
    return frozenset(
        uid for item in items if item.get("ValueType") == "IMAGE" for uid in _instances(item)
    )


def _instances(holder: Dataset) -> Iterator[str]:
    """SOP Instance UIDs of a Referenced SOP Sequence, masks and other reports left aside."""
    for reference in holder.get("ReferencedSOPSequence") or ():
        uid = str(reference.get("ReferencedSOPInstanceUID") or "")
        if uid and reference.get("ReferencedSOPClassUID") not in _NO_IMAGES:
            yield uid
