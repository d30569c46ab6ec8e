"""Storage commitment (PS3.4 annex J): who asks for what to be safe, and what is answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Protocol

from pydicom import Dataset
from pydicom.uid import UID

from dicom_io.access_control import AssociationFacts
from dicom_io.instance_header import is_uid
from dicom_io.remote import RemoteAE

PUSH_MODEL: Final = UID("1.2.840.10008.1.20.1")
PUSH_MODEL_INSTANCE: Final = UID("1.2.840.10008.1.20.1.1")
REQUEST_COMMITMENT: Final = 1  # action type
ALL_COMMITTED: Final = 1  # event types
SOME_FAILED: Final = 2

# Failure reasons (PS3.3 C.14.1.1).
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
CLASS_INSTANCE_CONFLICT: Final = 0x0119

_MOST_REFERENCES: Final = 10_000
_LONGEST_REFERENCE: Final = 256  # an item with two UIDs of 64 characters, and a reason
_ITEM: Final = b"\xfe\xff\x00\xe0"  # (FFFE,E000) in little endian; no UID holds these bytes


@dataclass(frozen=True)
class InstanceReference:
    """One SOP instance by its class and its UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """A question whether instances are safe.

    Attributes:
        transaction_uid: the requestor's name for the question.
        references: the instances.
    """

    transaction_uid: str
    references: tuple[InstanceReference, ...]


@dataclass(frozen=True)
class CommitmentResult:
    """The answer to a question whether instances are safe.

    Attributes:
        transaction_uid: the question.
        committed: the instances that are safe.
        failed: the others, each with its failure reason (PS3.3 C.14.1.1).
    """

    transaction_uid: str
    committed: tuple[InstanceReference, ...]
    failed: tuple[tuple[InstanceReference, int], ...] = ()


@dataclass(frozen=True)
class DueReport:
    """A question that was taken, and whose answer is to be reported now.

    Attributes:
        report_key: the register's name for it.
        association_uid: the association in which it was asked.
        request: the question.
        remote: where to report to in an association of our own; None: in the requestor's only.
    """

    report_key: int
    association_uid: str
    request: CommitmentRequest
    remote: RemoteAE | None


class CommitmentRegister(Protocol):
    """Who knows what is safe, and remembers what has to be reported. Called from several threads.

    What it remembers survives the end of the process, so that no question that was taken is left
    without an answer.
    """

    def take_request(self, association: AssociationFacts, request: CommitmentRequest) -> None:
        """Remember a question until its answer is reported; an exception refuses it for now."""

    def due_reports(self) -> Sequence[DueReport]:
        """The questions to answer now, also those that were taken before a restart."""

    def result_of(self, request: CommitmentRequest) -> CommitmentResult:
        """Look for the instances; an exception answers that processing failed for each."""

    def reported(self, report: DueReport) -> None:
        """The requestor has its answer; the question is forgotten."""

    def not_reported(self, report: DueReport, reason: str) -> None:
        """The requestor did not take the answer; where there is a way, it is tried again later."""

    def commitment_reported(self, association: AssociationFacts, result: CommitmentResult) -> None:
        """A peer answers a question of ours; an exception lets it report again.

        Raises:
            ValueError: we asked no such question, or not this peer.
        """


def require_sane_size(encoded: BytesIO | None) -> None:
    """Refuse action or event information that would cost much to take apart.

    Decoding makes a thousand bytes of an empty item of eight, so it is too late to count then.

    Args:
        encoded: the dataset as it came, in little endian and not deflated; None without one.

    Raises:
        ValueError: it is longer, or has more items, than any question that is answered.
    """
    content = b"" if encoded is None else encoded.getvalue()
    if len(content) > 2 * _MOST_REFERENCES * _LONGEST_REFERENCE:
        raise ValueError("the dataset is too long")
    if content.count(_ITEM) > 2 * _MOST_REFERENCES:
        raise ValueError("the dataset has too many items")


def request_from(information: Dataset) -> CommitmentRequest:
    """Read the action information of a request (PS3.4 table J.3-1).

    Args:
        information: from whoever sent it.

    Returns:
        The question.

    Raises:
        ValueError: it is malformed.
    """
    return CommitmentRequest(
        _uid(information, "TransactionUID"), _references(information, "ReferencedSOPSequence")
    )


def result_from(information: Dataset) -> CommitmentResult:
    """Read the event information of a report (PS3.4 table J.3-2).

    Args:
        information: from whoever sent it.

    Returns:
        The answer.

    Raises:
        ValueError: it is malformed.
    """
    failed = _references(information, "FailedSOPSequence")
    items = information.get("FailedSOPSequence") or ()
    reasons = [int(item.get("FailureReason") or PROCESSING_FAILURE) for item in items]
    return CommitmentResult(
        _uid(information, "TransactionUID"),
        _references(information, "ReferencedSOPSequence"),
        tuple(zip(failed, reasons, strict=True)),
    )


def dataset_of_request(request: CommitmentRequest) -> Dataset:
    """The action information of a request."""
    information = Dataset()
    information.TransactionUID = request.transaction_uid
    information.ReferencedSOPSequence = _items(request.references)
    return information


def dataset_of_result(result: CommitmentResult) -> Dataset:
    """The event information of a report."""
    information = Dataset()
    information.TransactionUID = result.transaction_uid
    if result.committed:
        information.ReferencedSOPSequence = _items(result.committed)
    if result.failed:
        items = _items(reference for reference, _ in result.failed)
        for item, (_, reason) in zip(items, result.failed, strict=True):
            item.FailureReason = reason
        information.FailedSOPSequence = items
    return information


def event_type_of(result: CommitmentResult) -> int:
    """The event type of a report (PS3.4 J.3.3.1)."""
    return SOME_FAILED if result.failed else ALL_COMMITTED


def _items(references: Iterable[InstanceReference]) -> list[Dataset]:
    items = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        items.append(item)
    return items


def _references(information: Dataset, keyword: str) -> tuple[InstanceReference, ...]:
    items = information.get(keyword) or ()
    if len(items) > _MOST_REFERENCES:
        raise ValueError(f"{keyword} has more than {_MOST_REFERENCES} items")
    return tuple(
        InstanceReference(
            _uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")
        )
        for item in items
    )


def _uid(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    text = "" if value is None else str(value)
    if not is_uid(text):
        raise ValueError(f"{keyword} is missing or malformed")
    return text
