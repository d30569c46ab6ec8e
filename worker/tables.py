"""The database's tables. The database is the truth; the queue only wakes workers.

No column of patient data: UIDs, hashes, paths, numbers, states. Times are time-zone aware UTC.
"""

from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from dicom_io.findings import Verdict
from dicom_io.uids import ResultKind
from worker.columns import REASON_LENGTH, UID_LENGTH, Table, enum_column
from worker.studies import StudyState


class DeliveryState(Enum):
    """Where the sending of one result to one target stands.

    ``awaiting commitment`` is stored by a target that is asked to commit to keep it.
    ``substituted`` is final: the target does not take this kind, and another that stands in for it
    was entered. ``not taken`` is final too, nothing stands in; it is no failure as long as the
    target took another result of the film. ``target removed`` is final and no failure: an operator
    gave it up, since the settings name the target no longer.
    """

    PENDING = "pending"
    AWAITING_COMMITMENT = "awaiting commitment"
    DELIVERED = "delivered"
    SUBSTITUTED = "substituted"
    NOT_TAKEN = "not taken"
    TARGET_REMOVED = "target removed"
    FAILED = "failed"
    SUPERSEDED = "superseded"


UNSETTLED = (DeliveryState.PENDING, DeliveryState.AWAITING_COMMITMENT)


class InferenceState(Enum):
    """What came of one instance under one model."""

    STARTED = "started"
    READ = "read"
    REJECTED = "rejected"
    FAILED = "failed"


class Study(Table):
    """One study. An object that belongs to no study has a row of its own, without study UID.

    Attributes:
        revision: counts the times that the study grew after a worker had taken it; from 1.
        received_at: when its first instance came.
        revision_started_at: when the first instance of this revision came.
        last_change_at: when its last instance came or its last association ended.
        ready_at: when a received study becomes ready.
        woken_at: when a worker was last woken for it; None if nobody was.
        attempts: claims in a row that settled not a single instance.
        next_attempt_at: not to be claimed before this; None is at once.
        lease_token: who holds it; None unless running.
        lease_expires_at: until when, without a further sign of life.
        reason: why it failed or was rejected.
        finished_at: when it was last done, failed, rejected or removed.
    """

    __tablename__ = "studies"
    __table_args__ = (
        Index(None, "state", "ready_at"),
        Index(None, "state", "lease_expires_at"),
        Index(None, "state", "finished_at"),
    )

    study_key: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH), unique=True)
    state: Mapped[StudyState] = mapped_column(enum_column(StudyState))
    revision: Mapped[int] = mapped_column(default=1)
    received_at: Mapped[datetime]
    revision_started_at: Mapped[datetime]
    last_change_at: Mapped[datetime]
    ready_at: Mapped[datetime]
    woken_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    lease_token: Mapped[str | None] = mapped_column(String(36))
    lease_expires_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(String(REASON_LENGTH))
    finished_at: Mapped[datetime | None]

    instances: Mapped[list["Instance"]] = relationship(back_populates="study")


class Series(Table):
    """One series of a study, as received."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_key", "series_uid"),)

    series_key: Mapped[int] = mapped_column(primary_key=True)
    study_key: Mapped[int] = mapped_column(ForeignKey("studies.study_key"))
    series_uid: Mapped[str] = mapped_column(String(UID_LENGTH))


class Instance(Table):
    """One object as it was received; its file is never changed.

    Attributes:
        relative_path: below the instance store.
        sha256: of the encoded dataset.
        size: of the encoded dataset, in bytes.
        revision: of the study, to which it was new.
        rejection: name of the ``RejectionReason`` where it was refused before any reading.
        rejection_detail: what was seen, free of patient data.
    """

    __tablename__ = "instances"

    instance_key: Mapped[int] = mapped_column(primary_key=True)
    study_key: Mapped[int] = mapped_column(ForeignKey("studies.study_key"), index=True)
    series_key: Mapped[int | None] = mapped_column(ForeignKey("series.series_key"))
    association_key: Mapped[int | None] = mapped_column(ForeignKey("associations.association_key"))
    sop_instance_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH), unique=True)
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    relative_path: Mapped[str] = mapped_column(String(255), index=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    received_at: Mapped[datetime]
    revision: Mapped[int]
    rejection: Mapped[str | None] = mapped_column(String(32))
    rejection_detail: Mapped[str | None] = mapped_column(String(REASON_LENGTH))

    study: Mapped[Study] = relationship(back_populates="instances")
    inferences: Mapped[list["Inference"]] = relationship(back_populates="instance")


class InstanceConflict(Table):
    """Other bytes that came under the SOP Instance UID of an instance; the first one stays."""

    __tablename__ = "instance_conflicts"
    __table_args__ = (UniqueConstraint("instance_key", "sha256"),)

    conflict_key: Mapped[int] = mapped_column(primary_key=True)
    instance_key: Mapped[int] = mapped_column(ForeignKey("instances.instance_key"))
    relative_path: Mapped[str] = mapped_column(String(255), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int | None] = mapped_column(BigInteger)
    received_at: Mapped[datetime]


class Model(Table):
    """A model that this node has used; its version is unique because result UIDs derive from it."""

    __tablename__ = "models"

    model_key: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    first_used_at: Mapped[datetime]


class Inference(Table):
    """What one model made of one instance; the row stands before the first attempt begins.

    Attributes:
        revision: of the study, in which it was made.
        attempts: counted before the film is touched, so that one that kills its worker counts.
        probability: calibrated probability of pneumonia, in [0, 1].
        operating_point: the probability at which the verdict turns.
        lung_area_percent: share of the film covered by both lungs, 0 to 100.
        lung_area_cm2: both lungs in cm2; None where the source has no Pixel Spacing.
        rejection: name of the ``RejectionReason``.
        reason: why there is no result, in words.
        seconds: wall time of the reading.
    """

    __tablename__ = "inferences"
    __table_args__ = (UniqueConstraint("instance_key", "model_key"),)

    inference_key: Mapped[int] = mapped_column(primary_key=True)
    instance_key: Mapped[int] = mapped_column(ForeignKey("instances.instance_key"))
    model_key: Mapped[int] = mapped_column(ForeignKey("models.model_key"))
    revision: Mapped[int]
    state: Mapped[InferenceState] = mapped_column(enum_column(InferenceState))
    attempts: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    verdict: Mapped[Verdict | None] = mapped_column(enum_column(Verdict))
    probability: Mapped[float | None]
    operating_point: Mapped[float | None]
    lung_area_percent: Mapped[float | None]
    lung_area_cm2: Mapped[float | None]
    gate_score: Mapped[float | None]
    rejection: Mapped[str | None] = mapped_column(String(32))
    reason: Mapped[str | None] = mapped_column(String(REASON_LENGTH))
    seconds: Mapped[float | None]

    instance: Mapped[Instance] = relationship(back_populates="inferences")
    model: Mapped[Model] = relationship()
    results: Mapped[list["Result"]] = relationship(back_populates="inference")


class Result(Table):
    """One result object, as stored and as it is sent.

    Attributes:
        revision: of the study, in which it was made; later ones carry it over unchanged.
        superseded_by_key: the result of a newer model for the same instance and kind.
    """

    __tablename__ = "results"
    __table_args__ = (UniqueConstraint("inference_key", "kind"),)

    result_key: Mapped[int] = mapped_column(primary_key=True)
    study_key: Mapped[int] = mapped_column(ForeignKey("studies.study_key"), index=True)
    inference_key: Mapped[int] = mapped_column(ForeignKey("inferences.inference_key"))
    revision: Mapped[int]
    kind: Mapped[ResultKind] = mapped_column(enum_column(ResultKind))
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_instance_uid: Mapped[str] = mapped_column(String(UID_LENGTH), unique=True)
    series_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    relative_path: Mapped[str] = mapped_column(String(255), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    superseded_by_key: Mapped[int | None] = mapped_column(ForeignKey("results.result_key"))

    inference: Mapped[Inference] = relationship(back_populates="results")
    deliveries: Mapped[list["Delivery"]] = relationship(back_populates="result")


class Peer(Table):
    """A target that results are sent to, with the state of its circuit breaker.

    Attributes:
        name: from the settings; a changed address keeps the row and what waits for it.
        ae_title: of a remote AE; empty for a DICOMweb service, as its host, and its port 0.
        url: root of a DICOMweb service; None for a remote AE.
        results: its profile, the kinds of result that it gets, e.g. ``seg+sc``.
        configured: whether the settings name it now.
        commits: whether a result is delivered only when it has committed to keep it.
        failures: associations in a row that failed.
        next_attempt_at: not to be called before this; None is at once.
        last_failure: what the last association failed of.
        lease_token: which sender calls it now; one at a time.
        lease_expires_at: until when, without a further sign of life.
        woken_at: when a sender was last woken for it.
    """

    __tablename__ = "peers"

    peer_key: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    ae_title: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(253))
    port: Mapped[int]
    url: Mapped[str | None] = mapped_column(String(512))
    results: Mapped[str] = mapped_column(String(64), server_default="seg+sc")
    configured: Mapped[bool] = mapped_column(default=True)
    commits: Mapped[bool] = mapped_column(default=False, server_default=false())
    failures: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    last_failure: Mapped[str | None] = mapped_column(String(REASON_LENGTH))
    lease_token: Mapped[str | None] = mapped_column(String(36))
    lease_expires_at: Mapped[datetime | None]
    woken_at: Mapped[datetime | None]


class Delivery(Table):
    """The sending of one result to one target; stands from the moment in which results exist.

    Attributes:
        instead_of: the kind in whose place it is sent, where the target's profile does not name it.
        attempts: counted before the association is opened.
        next_attempt_at: not to be sent before this, or not to be asked for.
        status: the target's last C-STORE or HTTP status; None if it never answered.
        reason: what the last attempt came to, in words.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("result_key", "peer_key"),
        Index(None, "peer_key", "state", "next_attempt_at"),
        Index(None, "study_key", "state"),
    )

    delivery_key: Mapped[int] = mapped_column(primary_key=True)
    study_key: Mapped[int] = mapped_column(ForeignKey("studies.study_key"))
    result_key: Mapped[int] = mapped_column(ForeignKey("results.result_key"))
    peer_key: Mapped[int] = mapped_column(ForeignKey("peers.peer_key"))
    instead_of: Mapped[ResultKind | None] = mapped_column(enum_column(ResultKind))
    state: Mapped[DeliveryState] = mapped_column(enum_column(DeliveryState))
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime]
    status: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(String(REASON_LENGTH))
    finished_at: Mapped[datetime | None]

    result: Mapped[Result] = relationship(back_populates="deliveries")
    peer: Mapped[Peer] = relationship()


class Association(Table):
    """An association in which this node was called.

    Attributes:
        listener: which listener took it; what a dead one left open is closed when it returns.
        association_uid: the listener's name for it.
        ended_at: None while it is open.
        released: False if it was aborted or lost.
    """

    __tablename__ = "associations"
    __table_args__ = (Index(None, "listener", "ended_at"),)

    association_key: Mapped[int] = mapped_column(primary_key=True)
    association_uid: Mapped[str] = mapped_column(String(64), unique=True)
    listener: Mapped[str] = mapped_column(String(255))
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    called_ae_title: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(64))
    accepted_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    released: Mapped[bool | None]


class AssociationStudy(Table):
    """Which associations brought part of which study."""

    __tablename__ = "association_studies"

    association_key: Mapped[int] = mapped_column(
        ForeignKey("associations.association_key"), primary_key=True
    )
    study_key: Mapped[int] = mapped_column(
        ForeignKey("studies.study_key"), primary_key=True, index=True
    )


class FileToRemove(Table):
    """A file of a removed study that still has to be deleted.

    Attributes:
        relative_path: below the instance store.
        sha256: of the encoded dataset; None of what lies in quarantine.
    """

    __tablename__ = "files_to_remove"

    relative_path: Mapped[str] = mapped_column(String(255), primary_key=True)
    study_key: Mapped[int] = mapped_column(ForeignKey("studies.study_key"), index=True)
    sha256: Mapped[str | None] = mapped_column(String(64))


class Event(Table):
    """One entry of the event log; a trigger refuses to change or delete it.

    The keys are no foreign keys: the log outlives what it tells of.
    """

    __tablename__ = "events"

    event_key: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True
    )
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(32))
    study_key: Mapped[int | None] = mapped_column(index=True)
    association_key: Mapped[int | None] = mapped_column(index=True)
    detail: Mapped[dict[str, Any]]


class PartHeartbeat(Table):
    """When a part of the node last showed that it works; of workers, when one took a task.

    Attributes:
        part: ``listener``, ``sweeper``, the name of a queue, or that with ``opening`` behind it
            while a process of its worker opens.
    """

    __tablename__ = "part_heartbeats"

    part: Mapped[str] = mapped_column(String(32), primary_key=True)
    seen_at: Mapped[datetime]
    host: Mapped[str] = mapped_column(String(255))
    process: Mapped[int]
