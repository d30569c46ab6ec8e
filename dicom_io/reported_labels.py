"""The classes of images by the structured reports of an export: which speak, of what, and agree."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_io.archive_items import ExportedImage, ExportedReport, ReportedClass
from dicom_io.eligibility import OTHER_VIEW_POSITIONS


@dataclass(frozen=True)
class ReportedLabels:
    """What the reports of an export come to.

    Attributes:
        labels: class by SOP Instance UID of the image.
        reports: number of reports that these labels come from.
        problems: (path, reason) of reports that contradict themselves or each other.
    """

    labels: Mapping[str, str]
    reports: int
    problems: tuple[tuple[Path, str], ...]


def reported_labels(
    reports: Sequence[ExportedReport], images: Mapping[str, ExportedImage]
) -> ReportedLabels:
    """Give images the classes that reports state of them.

    A report speaks of the frontal images that it names, or, where it names none, of its study if
    one frontal film is in it. A report that a later one replaces is not heard. Where reports
    contradict each other, or one itself, the image gets no class.

    Args:
        reports: in the order of their paths.
        images: every image of the export, by SOP Instance UID.
    """
    current, problems = _current(reports)
    frontal_of_study = _frontal_images(images.values())
    classes: dict[str, dict[str, Path]] = defaultdict(dict)
    for report in current:
        for uid, labels in _classes_by_image(report, images, frontal_of_study).items():
            for label in sorted(labels):
                classes[uid].setdefault(label, report.path)
    contradictory = {uid for uid, by_label in classes.items() if len(by_label) > 1}
    for uid in sorted(contradictory):
        first, second = (classes[uid][label] for label in sorted(classes[uid]))
        other = "itself" if first == second else str(second)
        problems.append((first, f"contradicts {other} on {uid}; neither counts"))
    agreed = {uid: by_label for uid, by_label in classes.items() if uid not in contradictory}
    return ReportedLabels(
        labels={uid: next(iter(by_label)) for uid, by_label in agreed.items()},
        reports=len({path for by_label in agreed.values() for path in by_label.values()}),
        problems=tuple(problems),
    )


def _current(
    reports: Sequence[ExportedReport],
) -> tuple[list[ExportedReport], list[tuple[Path, str]]]:
    """Reports that none replaces; those that replace each other in a circle are problems."""
    by_uid = {report.sop_instance_uid: report for report in reports}
    replaced = {uid for report in reports for uid in report.replaces}
    current = [report for report in reports if report.sop_instance_uid not in replaced]
    heard = {report.sop_instance_uid for report in current}
    waiting = [uid for report in current for uid in report.replaces]
    while waiting:
        uid = waiting.pop()
        if uid in by_uid and uid not in heard:
            heard.add(uid)
            waiting.extend(by_uid[uid].replaces)
    circular = [report for report in reports if report.sop_instance_uid not in heard]
    return current, [(report.path, "is replaced by what it replaces") for report in circular]


def _frontal_images(images: Iterable[ExportedImage]) -> dict[str, list[str]]:
    frontal: dict[str, list[str]] = defaultdict(list)
    for image in images:
        if image.study_uid and _may_be_frontal(image):
            frontal[image.study_uid].append(image.sop_instance_uid)
    return frontal


def _may_be_frontal(image: ExportedImage) -> bool:
    return image.view not in OTHER_VIEW_POSITIONS


def _classes_by_image(
    report: ExportedReport,
    images: Mapping[str, ExportedImage],
    frontal_of_study: Mapping[str, list[str]],
) -> dict[str, set[str]]:
    """The class of each image that one report speaks of; two where it contradicts itself.

    What is open in one place does not weaken pneumonia that is present in another, but it does
    weaken its absence.
    """
    said: dict[str, set[str | None]] = defaultdict(set)
    for statement in report.said:
        for uid in _images_of(statement, report, images, frontal_of_study):
            said[uid].add(statement.label)
    return {
        uid: {label for label in labels if label is not None}
        for uid, labels in said.items()
        if "pneumonia" in labels or None not in labels
    }


def _images_of(
    statement: ReportedClass,
    report: ExportedReport,
    images: Mapping[str, ExportedImage],
    frontal_of_study: Mapping[str, list[str]],
) -> list[str]:
    if statement.images:
        named = (uid for uid in statement.images if uid in images)
        return [uid for uid in named if _may_be_frontal(images[uid])]
    frontal = frontal_of_study.get(report.study_uid, [])
    return frontal if len(frontal) == 1 else []
