"""What the event log tells: the life of one study from its first association on, or the latest."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session

from dicom_io.errors import MultiMixError
from worker.audit_tables import EventLink
from worker.tables import Association, Event, Study

_SHOWN_FIRST: Final = ("source", "target", "step", "sop_instance_uid", "reason", "outcome")

_Rows = Select[Event, EventLink, str | None, Association]


@dataclass(frozen=True)
class LogEntry:
    """One entry of the event log, with whom and what its keys stand for.

    Attributes:
        event_key: its number when it was written.
        position: its place in the chain; None until it is chained.
        sha256: its hash in that place.
        association_key: the association in which it happened, if any.
        at: when it happened.
        kind: value of an ``EventKind``.
        study_uid: the study that it happened to, if any.
        calling_ae_title: who called, if it happened in an association.
        called_ae_title: whom they called.
        host: the address they called from.
        detail: the rest; UIDs, hashes, states, numbers.
    """

    event_key: int
    position: int | None
    sha256: str | None
    association_key: int | None
    at: datetime
    kind: str
    study_uid: str | None
    calling_ae_title: str | None
    called_ae_title: str | None
    host: str | None
    detail: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return asdict(self) | {"at": self.at.isoformat()}

    def as_line(self) -> str:
        """The entry as one line for an operator."""
        parts = [self.at.isoformat(timespec="milliseconds"), self.kind]
        if self.calling_ae_title is not None:
            parts.append(f"by {self.calling_ae_title} ({self.host})")
        return "  ".join([*parts, _told(self.detail)]).rstrip()


def study_life(session: Session, study_uid: str) -> list[LogEntry]:
    """Everything that happened to a study, in the order of the log.

    Args:
        session: a transaction.
        study_uid: Study Instance UID.

    Returns:
        Its entries, and those of the associations that brought part of it.

    Raises:
        MultiMixError: no such study was ever received.
    """
    study_key = session.scalar(select(Study.study_key).where(Study.study_uid == study_uid))
    if study_key is None:
        raise MultiMixError(f"no study {study_uid} is known; `status` lists all")
    brought_it = select(Event.association_key).where(
        Event.study_key == study_key, Event.association_key.is_not(None)
    )
    of_the_study = or_(
        Event.study_key == study_key,
        and_(Event.study_key.is_(None), Event.association_key.in_(brought_it)),
    )
    return _entries(session, _in_order().where(of_the_study))


def latest_entries(session: Session, limit: int) -> list[LogEntry]:
    """The latest entries of the whole log, oldest first; refused associations are among them."""
    latest = select(Event.event_key).order_by(Event.event_key.desc()).limit(limit)
    return _entries(session, _in_order().where(Event.event_key.in_(latest.scalar_subquery())))


def entries_after(session: Session, position: int, limit: int) -> list[LogEntry]:
    """The chained entries that follow a place in the chain."""
    return _entries(session, _in_order().where(EventLink.position > position).limit(limit))


def _in_order() -> _Rows:
    return (
        select(Event, EventLink, Study.study_uid, Association)
        .outerjoin(EventLink, EventLink.event_key == Event.event_key)
        .outerjoin(Study, Study.study_key == Event.study_key)
        .outerjoin(Association, Association.association_key == Event.association_key)
        .order_by(EventLink.position.nulls_last(), Event.event_key)
    )


def _entries(session: Session, statement: _Rows) -> list[LogEntry]:
    return [
        LogEntry(
            event_key=event.event_key,
            position=link.position if link else None,
            sha256=link.sha256 if link else None,
            association_key=event.association_key,
            at=event.at,
            kind=event.kind,
            study_uid=study_uid,
            calling_ae_title=association.calling_ae_title if association else None,
            called_ae_title=association.called_ae_title if association else None,
            host=association.host if association else None,
            detail=event.detail,
        )
        for event, link, study_uid, association in session.execute(statement)
    ]


def _told(detail: Mapping[str, Any]) -> str:
    """The details of an entry in words, the telling ones first."""
    if detail.get("source") and detail.get("target"):  # a step of the study
        rest = {key: value for key, value in detail.items() if key not in ("source", "target")}
        return f"{detail['source']} -> {detail['target']}  {_told(rest)}"
    names = sorted(detail, key=lambda name: (name not in _SHOWN_FIRST, _rank(name), name))
    shown = (f"{name}={_value(detail[name])}" for name in names if detail[name] is not None)
    return "  ".join(shown)


def _rank(name: str) -> int:
    return _SHOWN_FIRST.index(name) if name in _SHOWN_FIRST else 0


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
