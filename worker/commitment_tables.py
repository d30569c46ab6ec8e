"""Tables of storage commitment: what peers asked us, and what we asked them."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from worker.columns import UID_LENGTH, Table


class CommitmentQuestion(Table):
    """A peer's question whether instances are safe; it stands until its answer is reported.

    Attributes:
        listener: which listener took it, and reports the answer.
        association_uid: the association in which it was asked.
        instances: SOP Class and SOP Instance UID of each.
        attempts: how often the peer was to be told, and was not.
        next_attempt_at: not to be told before this.
    """

    __tablename__ = "commitment_questions"
    __table_args__ = (
        UniqueConstraint("calling_ae_title", "transaction_uid"),
        Index(None, "listener", "next_attempt_at"),
    )

    question_key: Mapped[int] = mapped_column(primary_key=True)
    listener: Mapped[str] = mapped_column(String(255))
    association_uid: Mapped[str] = mapped_column(String(64))
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(64))
    transaction_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    instances: Mapped[list[list[str]]] = mapped_column(JSON)
    asked_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]


class CommitmentRequest(Table):
    """A question of ours to a target, whether it keeps results safe.

    Attributes:
        answered_at: when it reported; None if it has not.
    """

    __tablename__ = "commitment_requests"

    request_key: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(UID_LENGTH), unique=True)
    peer_key: Mapped[int] = mapped_column(ForeignKey("peers.peer_key"))
    asked_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
