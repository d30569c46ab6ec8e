"""Audit messages as DICOM PS3.15 A.5 writes them: XML that derives from RFC 3881.

They name studies by UID and never a patient, so the participant object Patient, which PS3.15 asks
for, is left out on purpose.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

_SYSTEM_OBJECT: Final = "2"
_REPORT_ROLE: Final = "3"
_SECURITY_RESOURCE_ROLE: Final = "13"
_APPLICATION_SERVER: Final = "4"


@dataclass(frozen=True)
class Code:
    """A concept of PS3.16 annex D (coding scheme DCM)."""

    value: str
    meaning: str


APPLICATION_ACTIVITY: Final = Code("110100", "Application Activity")
BEGIN_TRANSFERRING: Final = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED: Final = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
STUDY_DELETED: Final = Code("110105", "DICOM Study Deleted")
SECURITY_ALERT: Final = Code("110113", "Security Alert")
APPLICATION_START: Final = Code("110120", "Application Start")
APPLICATION_STOP: Final = Code("110121", "Application Stop")
NODE_AUTHENTICATION: Final = Code("110126", "Node Authentication")
APPLICATION: Final = Code("110150", "Application")
DESTINATION: Final = Code("110152", "Destination Role ID")
SOURCE: Final = Code("110153", "Source Role ID")
STUDY_INSTANCE_UID: Final = Code("110180", "Study Instance UID")
NODE_ID: Final = Code("110182", "Node ID")


class Action(Enum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(Enum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True)
class ActiveParticipant:
    """A process or person that took part.

    Attributes:
        user_id: AE title, process, or name of an operator.
        is_requestor: whether it began what happened.
        role: in a transfer, which end.
        ae_title: its AE title, if it has one.
        address: its host name or IP address, if known.
    """

    user_id: str
    is_requestor: bool
    role: Code | None = None
    ae_title: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class StudyObject:
    """A study that something was done with.

    Attributes:
        study_uid: Study Instance UID.
        instances: how many, by SOP Class UID; the empty string is of an unknown class.
    """

    study_uid: str
    instances: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditMessage:
    """One message.

    Attributes:
        event: what happened.
        action: what was done.
        at: when.
        participants: who took part; one at least.
        event_type: what of it.
        outcome: how it ended.
        outcome_description: the same in words.
        studies: with what it was done.
        alerting_node: the node that an alert is about.
    """

    event: Code
    action: Action
    at: datetime
    participants: tuple[ActiveParticipant, ...]
    event_type: Code | None = None
    outcome: Outcome = Outcome.SUCCESS
    outcome_description: str | None = None
    studies: tuple[StudyObject, ...] = ()
    alerting_node: str | None = None


def as_xml(message: AuditMessage, audit_source: str) -> bytes:
    """Write a message by the schema of PS3.15 A.5.1.

    Args:
        message: what to say.
        audit_source: who says so, as the repository knows it.

    Returns:
        UTF-8, with an XML declaration.
    """
    root = Element("AuditMessage")
    _add_event(root, message)
    for participant in message.participants:
        _add_participant(root, participant)
    source = SubElement(root, "AuditSourceIdentification", AuditSourceID=_text(audit_source))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for study in message.studies:
        _add_study(root, study)
    if message.alerting_node is not None:
        _add_object(root, message.alerting_node, NODE_ID, _SECURITY_RESOURCE_ROLE)
    written: bytes = tostring(root, encoding="UTF-8", xml_declaration=True)
    return written


def _add_event(root: Element, message: AuditMessage) -> None:
    event = SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action.value,
        EventDateTime=message.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=message.outcome.value,
    )
    _add_code(event, "EventID", message.event)
    if message.event_type is not None:
        _add_code(event, "EventTypeCode", message.event_type)
    if message.outcome_description is not None:
        described = SubElement(event, "EventOutcomeDescription")
        described.text = _text(message.outcome_description)


def _add_participant(root: Element, participant: ActiveParticipant) -> None:
    attributes = {
        "UserID": _text(participant.user_id),
        "UserIsRequestor": "true" if participant.is_requestor else "false",
    }
    if participant.ae_title is not None:  # PS3.15 A.5.2.2
        attributes["AlternativeUserID"] = f"AETITLES={_text(participant.ae_title)}"
    if participant.address:
        attributes["NetworkAccessPointID"] = _text(participant.address)
        is_address = _is_ip_address(participant.address)
        attributes["NetworkAccessPointTypeCode"] = "2" if is_address else "1"
    element = SubElement(root, "ActiveParticipant", attributes)
    if participant.role is not None:
        _add_code(element, "RoleIDCode", participant.role)


def _add_study(root: Element, study: StudyObject) -> None:
    element = _add_object(root, study.study_uid, STUDY_INSTANCE_UID, _REPORT_ROLE)
    if not study.instances:
        return
    description = SubElement(element, "ParticipantObjectDescription")
    for sop_class_uid, count in sorted(study.instances.items()):
        attributes = {"UID": sop_class_uid} if sop_class_uid else {}
        SubElement(description, "SOPClass", attributes | {"NumberOfInstances": str(count)})


def _add_object(root: Element, identifier: str, kind: Code, role: str) -> Element:
    element = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_text(identifier),
        ParticipantObjectTypeCode=_SYSTEM_OBJECT,
        ParticipantObjectTypeCodeRole=role,
    )
    _add_code(element, "ParticipantObjectIDTypeCode", kind)
    # The schema wants a name or a query; a study has no other name that may be told.
    SubElement(element, "ParticipantObjectName").text = _text(identifier)
    return element


def _add_code(parent: Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": "DCM", "originalText": code.meaning}
    SubElement(parent, name, attributes)


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _text(text: str) -> str:
    """What XML 1.0 can hold: a peer's name may come from anyone."""
    return "".join(character if character.isprintable() else "?" for character in text)
