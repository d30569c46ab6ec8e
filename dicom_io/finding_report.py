"""What a structured report of any producer says of pneumonia in the films that it speaks of.

Read are measurement reports (TID 1500 of PS3.16) and plain content trees: a coded Finding,
Impression or Conclusion with what qualifies it, or an evaluation that is named by the disease. In
doubt a report says nothing: a missing label costs less than a wrong one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from pydicom import Dataset

from dicom_io import finding_codes as concept
from dicom_io.archive_items import ExportedReport, ReportedClass
from dicom_io.content_items import (
    children_of,
    evidence,
    images_named,
    name_of,
    subtree,
    value_of,
)
from dicom_io.errors import ArchiveError
from dicom_io.finding_codes import ConceptKey
from dicom_io.uids import MANUFACTURER_MODEL_NAME

DEEPEST_NESTING: Final = 48


class _Answer(Enum):
    """Whether a finding is there."""

    PRESENT = "present"
    ABSENT = "absent"
    OPEN = "open"


@dataclass(frozen=True)
class _Qualifiers:
    """What content items say of the finding that they stand beside or below.

    Attributes:
        answers: whether it is there, where an item says so by name.
        is_doubted: an item may answer the same question by a name that is not known here, or
            gives a certainty in place of an answer.
        is_limited: it was looked for in a part of the chest only.
        is_named: an item named by the disease answers in the finding's place.
    """

    answers: frozenset[_Answer]
    is_doubted: bool
    is_limited: bool
    is_named: bool

    def with_those_of(self, others: "_Qualifiers") -> "_Qualifiers":
        """Both together."""
        return _Qualifiers(
            self.answers | others.answers,
            self.is_doubted or others.is_doubted,
            self.is_limited or others.is_limited,
            self.is_named or others.is_named,
        )

    @property
    def answer(self) -> _Answer:
        """A finding that is stated without more is present."""
        if self.answers:
            return next(iter(self.answers)) if len(self.answers) == 1 else _Answer.OPEN
        return _Answer.OPEN if self.is_doubted else _Answer.PRESENT


@dataclass(frozen=True)
class _Place:
    """Where in the content tree an item stands.

    Attributes:
        depth: levels below the root.
        is_on_the_whole: whether all that holds it speaks of the whole examination.
        beside: qualifiers among the items of the same parent.
        images: of the measurement group that it belongs to; empty outside of one.
    """

    depth: int
    is_on_the_whole: bool
    beside: _Qualifiers
    images: frozenset[str]


def read_report(path: Path, report: Dataset) -> ExportedReport | None:
    """Take from a structured report what it says of pneumonia.

    Args:
        path: of its file.
        report: the whole object.

    Returns:
        None for a report that says nothing of it and replaces no other, and for reports of this
        node: a network must not learn from its own output.

    Raises:
        ArchiveError: the content is nested too deeply.
    """
    if report.get("ManufacturerModelName") == MANUFACTURER_MODEL_NAME:
        return None
    items = list(_walk(report, _root_place(report)))
    if any(_is_this_node(item) for item, _ in items):
        return None
    named = _images_of_report(report, (item for item, _ in items))
    said = tuple(
        ReportedClass(label, images_named(subtree(item)) or place.images or named)
        for item, place in items
        for label in _classes_said(item, place)
    )
    replaces = _replaced(report)
    if not said and not replaces:
        return None
    return ExportedReport(
        path=path,
        sop_instance_uid=str(report.SOPInstanceUID),
        study_uid=str(report.get("StudyInstanceUID") or ""),
        said=said,
        replaces=replaces,
    )


def _walk(parent: Dataset, place: _Place) -> Iterator[tuple[Dataset, _Place]]:
    """Every content item below a parent with its place.

    Sections on other times, questions and plans are left out. References from item to item
    (PS3.3 C.17.3.2.5) are not followed, so there is no way in circles.
    """
    if place.depth > DEEPEST_NESTING:
        raise ArchiveError(f"its content is nested deeper than {DEEPEST_NESTING} levels")
    for item in children_of(parent):
        if name_of(item) in concept.SECTIONS_LEFT_OUT:
            continue
        yield item, place
        if children_of(item):
            yield from _walk(item, _place_below(item, place))


def _root_place(report: Dataset) -> _Place:
    return _Place(0, True, _qualifiers(children_of(report), are_its_own=False), frozenset())


def _place_below(item: Dataset, place: _Place) -> _Place:
    name = name_of(item)
    is_group = name == concept.MEASUREMENT_GROUP
    return _Place(
        depth=place.depth + 1,
        is_on_the_whole=place.is_on_the_whole and name in concept.SECTIONS_OF_THE_WHOLE,
        beside=_qualifiers(children_of(item), are_its_own=is_group),
        images=images_named(subtree(item)) if is_group else place.images,
    )


def _qualifiers(items: Sequence[Dataset], *, are_its_own: bool) -> _Qualifiers:
    """What items say of the finding that they surround.

    Args:
        items: content items.
        are_its_own: whether they all belong to one finding, as those below it and those of one
            measurement group do. Of a section with several findings only a stated presence and
            site are taken.
    """
    answers: set[_Answer] = set()
    is_doubted = is_limited = is_named = False
    for item in items:
        name, value = name_of(item), value_of(item)
        if name in concept.PRESENCE:
            answers.add(_answer_of(value))
        elif name in concept.FINDING_SITE:
            is_limited |= value not in concept.WHOLE_CHEST or _is_one_sided(item)
        elif are_its_own and name in concept.PNEUMONIA:
            is_named = True
        elif are_its_own and name not in concept.FINDING:
            # What is asked here is not known; the answer may well be meant for the finding.
            is_doubted |= value in concept.ABSENT | concept.OPEN or name in concept.CERTAINTY
    return _Qualifiers(frozenset(answers), is_doubted, is_limited, is_named)


def _is_one_sided(site: Dataset) -> bool:
    return any(
        name_of(item) in concept.LATERALITY and value_of(item) not in concept.BOTH_SIDES
        for item in children_of(site)
    )


def _answer_of(value: ConceptKey | None) -> _Answer:
    if value in concept.PRESENT:
        return _Answer.PRESENT
    return _Answer.ABSENT if value in concept.ABSENT else _Answer.OPEN


def _classes_said(item: Dataset, place: _Place) -> Iterator[str | None]:
    """The class that one content item states, None where it leaves it open; mostly nothing.

    What is said to be absent, or normal, in a part of the chest says nothing of the whole film.
    """
    name, value = name_of(item), value_of(item)
    qualifiers = place.beside.with_those_of(_qualifiers(children_of(item), are_its_own=True))
    if name in concept.PNEUMONIA:
        yield from _class_of(_answer_of(value), qualifiers)
    elif name not in concept.FINDING:
        return
    elif value in concept.PNEUMONIA and not qualifiers.is_named:
        yield from _class_of(qualifiers.answer, qualifiers)
    elif value in concept.NORMAL and place.is_on_the_whole and not qualifiers.is_limited:
        yield "normal" if qualifiers.answer is _Answer.PRESENT else None


def _class_of(pneumonia: _Answer, qualifiers: _Qualifiers) -> Iterator[str | None]:
    if pneumonia is _Answer.PRESENT:
        yield "pneumonia"
    elif pneumonia is _Answer.OPEN:
        yield None
    elif not qualifiers.is_limited:
        yield "normal"


def _images_of_report(report: Dataset, items: Iterable[Dataset]) -> frozenset[str]:
    """Images of the examination that is reported on; those for comparison are not."""
    current = evidence(report, "CurrentRequestedProcedureEvidenceSequence")
    for_comparison = evidence(report, "PertinentOtherEvidenceSequence")
    return (images_named(items) | current) - for_comparison


def _replaced(report: Dataset) -> frozenset[str]:
    """SOP Instance UIDs of the reports that this one supersedes (PS3.3 C.17.2)."""
    return frozenset(
        str(reference.get("ReferencedSOPInstanceUID") or "")
        for study in report.get("PredecessorDocumentsSequence") or ()
        for series in study.get("ReferencedSeriesSequence") or ()
        for reference in series.get("ReferencedSOPSequence") or ()
    )


def _is_this_node(item: Dataset) -> bool:
    """Whether the observer is this software, for archives that rewrite the equipment module."""
    return (
        name_of(item) == concept.DEVICE_OBSERVER_MODEL_NAME
        and item.get("TextValue") == MANUFACTURER_MODEL_NAME
    )
