"""Which entries of the event log become audit messages, and what these say."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.access_control import Refusal
from worker.atna_messages import (
    APPLICATION,
    APPLICATION_ACTIVITY,
    APPLICATION_START,
    APPLICATION_STOP,
    BEGIN_TRANSFERRING,
    DESTINATION,
    INSTANCES_ACCESSED,
    INSTANCES_TRANSFERRED,
    NODE_AUTHENTICATION,
    SECURITY_ALERT,
    SOURCE,
    STUDY_DELETED,
    Action,
    ActiveParticipant,
    AuditMessage,
    Code,
    Outcome,
    StudyObject,
)
from worker.audit import LogEntry
from worker.events import EventKind
from worker.studies import Step
from worker.tables import Delivery, Event, Instance, Peer, Result, Study

# Refused for want of room, not because of who asked.
_NOT_A_SECURITY_MATTER: Final = frozenset(
    refusal.value
    for refusal in (
        Refusal.TOO_MANY,
        Refusal.TOO_MANY_OF_PEER,
        Refusal.LOW_DISK,
        Refusal.UNAVAILABLE,
    )
)
_ARRIVALS: Final = {
    EventKind.INSTANCE_STORED.value: (Action.CREATE, Outcome.SUCCESS, None),
    EventKind.INSTANCE_REPEATED.value: (Action.READ, Outcome.SUCCESS, None),
    EventKind.INSTANCE_CONFLICT.value: (
        Action.CREATE,
        Outcome.MINOR_FAILURE,
        "other bytes under a known SOP Instance UID, kept aside",
    ),
}


@dataclass(frozen=True)
class ThisNode:
    """The node, as it appears in its own messages.

    Attributes:
        ae_title: its AE title.
        host: name of its machine.
    """

    ae_title: str
    host: str

    def taking_part(self, *, is_requestor: bool, role: Code | None = None) -> ActiveParticipant:
        """The node as one that took part."""
        return ActiveParticipant(self.ae_title, is_requestor, role, self.ae_title, self.host)


def messages_of(session: Session, entry: LogEntry, node: ThisNode) -> list[AuditMessage]:
    """What is to be told of one entry of the log; mostly nothing, or one message.

    Args:
        session: a transaction, to look up what the entry's keys stand for.
        entry: the entry.
        node: who tells.
    """
    kind = entry.kind
    if kind in (EventKind.PART_STARTED.value, EventKind.PART_STOPPED.value):
        return [_activity(entry, node)]
    if kind == EventKind.ASSOCIATION_REFUSED.value:
        refused_for = entry.detail.get("reason")
        return [] if refused_for in _NOT_A_SECURITY_MATTER else [_alert(entry, node)]
    if kind == EventKind.ASSOCIATION_ENDED.value:
        return _arrivals(session, entry, node)
    if entry.study_uid is None:
        return []
    if kind == EventKind.INSTANCE_READ.value:
        return [_reading(session, entry, node)]
    if kind == EventKind.STUDY_STEP.value:
        made = entry.detail.get("step") == Step.RESULTS_MADE.name.lower()
        return _begin(session, entry, node) if made else []
    if kind in (EventKind.RESULT_SENT.value, EventKind.RESULT_REFUSED.value):
        return [_sent(session, entry, node)]
    if kind == EventKind.STUDY_REMOVED.value:
        return [_deleted(entry, node)]
    return []


def _activity(entry: LogEntry, node: ThisNode) -> AuditMessage:
    part = f"{entry.detail.get('part')} (process {entry.detail.get('process')})"
    started = entry.kind == EventKind.PART_STARTED.value
    host = str(entry.detail.get("host") or node.host)
    return AuditMessage(
        APPLICATION_ACTIVITY,
        Action.EXECUTE,
        entry.at,
        (ActiveParticipant(part, False, APPLICATION, node.ae_title, host),),
        event_type=APPLICATION_START if started else APPLICATION_STOP,
    )


def _alert(entry: LogEntry, node: ThisNode) -> AuditMessage:
    calling = str(entry.detail.get("calling") or "") or None  # nobody's name where TLS failed
    host = str(entry.detail.get("host") or "")
    return AuditMessage(
        SECURITY_ALERT,
        Action.EXECUTE,
        entry.at,
        (
            node.taking_part(is_requestor=True),
            ActiveParticipant(calling or "unknown", False, None, calling, host),
        ),
        event_type=NODE_AUTHENTICATION,
        outcome=Outcome.MINOR_FAILURE,
        outcome_description=f"association refused: {entry.detail.get('reason')}",
        alerting_node=host or calling or "unknown",
    )


def _arrivals(session: Session, entry: LogEntry, node: ThisNode) -> list[AuditMessage]:
    """What an association brought, when it has ended: a message for each study and outcome."""
    if entry.association_key is None:
        return []
    rows = session.execute(
        select(Study.study_uid, Event.kind, Instance.sop_class_uid)
        .join(Event, Event.study_key == Study.study_key)
        .outerjoin(
            Instance, Instance.sop_instance_uid == Event.detail["sop_instance_uid"].as_string()
        )
        .where(Event.association_key == entry.association_key, Event.kind.in_(_ARRIVALS))
    )
    brought: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for study_uid, kind, sop_class_uid in rows:
        if study_uid is not None:
            brought[study_uid, kind][sop_class_uid or ""] += 1
    calling = entry.calling_ae_title or "unknown"
    messages = []
    for (study_uid, kind), instances in sorted(brought.items()):
        action, outcome, description = _ARRIVALS[kind]
        messages.append(
            AuditMessage(
                INSTANCES_TRANSFERRED,
                action,
                entry.at,
                (
                    ActiveParticipant(calling, True, SOURCE, calling, entry.host),
                    node.taking_part(is_requestor=False, role=DESTINATION),
                ),
                outcome=outcome,
                outcome_description=description,
                studies=(StudyObject(study_uid, instances),),
            )
        )
    return messages


def _reading(session: Session, entry: LogEntry, node: ThisNode) -> AuditMessage:
    version = entry.detail.get("model_version")
    model = ActiveParticipant(f"model {version}", False, APPLICATION, None, node.host)
    sop_instance_uid = str(entry.detail.get("sop_instance_uid"))
    sop_class_uid = session.scalar(
        select(Instance.sop_class_uid).where(Instance.sop_instance_uid == sop_instance_uid)
    )
    return AuditMessage(
        INSTANCES_ACCESSED,
        Action.READ,
        entry.at,
        (node.taking_part(is_requestor=True), model),
        studies=(StudyObject(entry.study_uid or "", {sop_class_uid or "": 1}),),
    )


def _begin(session: Session, entry: LogEntry, node: ThisNode) -> list[AuditMessage]:
    """Results are made and on their way to every target that is to have them."""
    rows = session.execute(
        select(Peer.ae_title, Peer.name, Peer.host, Result.sop_class_uid)
        .join(Delivery, Delivery.peer_key == Peer.peer_key)
        .join(Result, Result.result_key == Delivery.result_key)
        .join(Study, Study.study_key == Delivery.study_key)
        .where(Study.study_uid == entry.study_uid)
    )
    going: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for ae_title, name, host, sop_class_uid in rows:
        going[ae_title or name, host][sop_class_uid] += 1
    return [
        AuditMessage(
            BEGIN_TRANSFERRING,
            Action.EXECUTE,
            entry.at,
            (
                node.taking_part(is_requestor=True, role=SOURCE),
                ActiveParticipant(target, False, DESTINATION, target, host),
            ),
            studies=(StudyObject(entry.study_uid or "", instances),),
        )
        for (target, host), instances in sorted(going.items())
    ]


def _sent(session: Session, entry: LogEntry, node: ThisNode) -> AuditMessage:
    target, _, address = str(entry.detail.get("target")).partition(" at ")
    host = address.rpartition(":")[0].strip("[]")
    sop_class_uid = session.scalar(
        select(Result.sop_class_uid).where(
            Result.sop_instance_uid == str(entry.detail.get("sop_instance_uid"))
        )
    )
    sent = entry.kind == EventKind.RESULT_SENT.value
    return AuditMessage(
        INSTANCES_TRANSFERRED,
        Action.CREATE,
        entry.at,
        (
            node.taking_part(is_requestor=True, role=SOURCE),
            ActiveParticipant(target, False, DESTINATION, target, host),
        ),
        outcome=Outcome.SUCCESS if sent else Outcome.SERIOUS_FAILURE,
        outcome_description=None if sent else str(entry.detail.get("outcome")),
        studies=(StudyObject(entry.study_uid or "", {sop_class_uid or "": 1}),),
    )


def _deleted(entry: LogEntry, node: ThisNode) -> AuditMessage:
    operator = entry.detail.get("operator")
    who = (
        ActiveParticipant(str(operator), True, None, None, node.host)
        if operator
        else node.taking_part(is_requestor=True)
    )
    return AuditMessage(
        STUDY_DELETED,
        Action.DELETE,
        entry.at,
        (who,),
        outcome_description=str(entry.detail.get("reason")),
        studies=(StudyObject(entry.study_uid or ""),),
    )
