"""What was read, as rows: inferences and results."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from dicom_io.findings import Findings
from dicom_io.storage import StoredInstance
from dicom_io.uids import ResultKind
from worker.columns import REASON_LENGTH
from worker.database import insert_if_absent
from worker.tables import (
    Delivery,
    DeliveryState,
    Inference,
    InferenceState,
    Instance,
    Model,
    Result,
)

SETTLED = (InferenceState.READ, InferenceState.REJECTED, InferenceState.FAILED)


class InstanceReading(Protocol):
    """What came out of one radiograph; ``worker.reading.Reading`` is one."""

    @property
    def findings(self) -> Findings:
        """Verdict, probability, lungs and saliency."""

    @property
    def display_hw(self) -> NDArray[np.uint8]:
        """The film as a reader sees it, uint8, (rows, columns)."""

    @property
    def lung_area_percent(self) -> float:
        """Share of the film covered by both lungs, 0 to 100."""

    @property
    def lung_area_cm2(self) -> float | None:
        """Both lungs in cm2, or None."""


@dataclass(frozen=True)
class StoredResult:
    """A result object that is on the disk.

    Attributes:
        kind: which object of the reading.
        stored: its file.
        series_uid: its Series Instance UID.
    """

    kind: ResultKind
    stored: StoredInstance
    series_uid: str


@dataclass(frozen=True)
class OlderResults:
    """What other models have made before.

    Attributes:
        versions: for each kind of which the study has a series, the version of the model that made
            the latest.
        report_version: the version of the model that made the latest report of the instance.
    """

    versions: dict[ResultKind, str]
    report_version: str | None


def unsettled_instances(session: Session, study_key: int, model_key: int) -> list[Instance]:
    """Instances of a study of which this model has neither results nor a refusal yet."""
    settled = select(Inference.instance_key).where(
        Inference.model_key == model_key, Inference.state.in_(SETTLED)
    )
    return list(
        session.scalars(
            select(Instance)
            .where(
                Instance.study_key == study_key,
                Instance.rejection.is_(None),
                Instance.instance_key.not_in(settled),
            )
            .order_by(Instance.instance_key)
        )
    )


def count_attempt(
    session: Session, instance: Instance, model_key: int, revision: int, now: datetime
) -> Inference:
    """Count an attempt on an instance before anything risky is done with it."""
    insert_if_absent(
        session,
        Inference,
        instance_key=instance.instance_key,
        model_key=model_key,
        revision=revision,
        state=InferenceState.STARTED,
        attempts=0,
        started_at=now,
    )
    inference = session.scalars(
        select(Inference).where(
            Inference.instance_key == instance.instance_key, Inference.model_key == model_key
        )
    ).one()
    inference.attempts += 1
    inference.started_at = now
    inference.revision = revision
    return inference


def settle_without_result(
    inference: Inference,
    state: InferenceState,
    reason: str,
    now: datetime,
    rejection: str | None = None,
) -> None:
    """Note that an instance gets no result from this model, and why."""
    inference.state = state
    inference.reason = reason[:REASON_LENGTH]
    inference.rejection = rejection
    inference.finished_at = now


def settle_with_results(
    session: Session,
    inference: Inference,
    study_key: int,
    reading: InstanceReading,
    stored: list[StoredResult],
    now: datetime,
    seconds: float,
) -> None:
    """Note what was found in an instance and the objects that say so.

    Results of other models for the same instance are superseded, and not sent any more where they
    still wait.
    """
    findings = reading.findings
    inference.state = InferenceState.READ
    inference.finished_at = now
    inference.seconds = seconds
    inference.verdict = findings.verdict
    inference.probability = findings.probability
    inference.operating_point = findings.operating_point
    inference.lung_area_percent = reading.lung_area_percent
    inference.lung_area_cm2 = reading.lung_area_cm2
    inference.gate_score = findings.gate_score
    inference.reason = inference.rejection = None
    result_keys: dict[ResultKind, int] = {}
    for made in stored:
        result = Result(
            study_key=study_key,
            inference_key=inference.inference_key,
            revision=inference.revision,
            kind=made.kind,
            sop_class_uid=made.stored.sop_class_uid,
            sop_instance_uid=made.stored.sop_instance_uid,
            series_uid=made.series_uid,
            relative_path=made.stored.relative_path,
            sha256=made.stored.sha256,
            size=made.stored.size,
            created_at=now,
        )
        session.add(result)
        session.flush()
        result_keys[made.kind] = result.result_key
    _supersede_older(session, inference, result_keys, now)


def older_results(session: Session, instance: Instance, model_key: int) -> OlderResults:
    """What other models have made of an instance and of its study."""
    rows = session.execute(
        select(Result.kind, Model.version, Inference.instance_key)
        .join(Inference, Inference.inference_key == Result.inference_key)
        .join(Model, Model.model_key == Inference.model_key)
        .where(Result.study_key == instance.study_key, Inference.model_key != model_key)
        .order_by(Result.result_key)
    )
    versions: dict[ResultKind, str] = {}
    report_version = None
    for kind, version, instance_key in rows:
        versions[kind] = version
        if kind is ResultKind.REPORT and instance_key == instance.instance_key:
            report_version = version
    return OlderResults(versions, report_version)


def inference_counts(session: Session, study_key: int, model_key: int) -> dict[InferenceState, int]:
    """How many instances of a study this model has read, rejected, failed, and not settled."""
    rows = session.execute(
        select(Inference.state, func.count())
        .join(Instance)
        .where(Instance.study_key == study_key, Inference.model_key == model_key)
        .group_by(Inference.state)
    )
    return {state: count for state, count in rows}  # noqa: C416 - rows are no pairs to mypy


def reasons_without_result(session: Session, study_key: int, model_key: int) -> list[str]:
    """The different reasons for which instances of a study have no result."""
    return sorted(
        set(
            session.scalars(
                select(Inference.reason)
                .join(Instance)
                .where(
                    Instance.study_key == study_key,
                    Inference.model_key == model_key,
                    Inference.reason.is_not(None),
                )
            )
        )
    )


def _supersede_older(
    session: Session, inference: Inference, made: dict[ResultKind, int], now: datetime
) -> None:
    """Mark the results of other models for the same instance, also of kinds not made any more."""
    other = aliased(Inference)
    older = session.scalars(
        select(Result)
        .join(other, other.inference_key == Result.inference_key)
        .where(
            other.instance_key == inference.instance_key,
            other.inference_key != inference.inference_key,
            Result.superseded_by_key.is_(None),
        )
    ).all()
    for result in older:
        result.superseded_by_key = made.get(result.kind, min(made.values()))
    session.execute(
        update(Delivery)
        .where(
            Delivery.result_key.in_([result.result_key for result in older]),
            Delivery.state == DeliveryState.PENDING,
        )
        .values(state=DeliveryState.SUPERSEDED, finished_at=now)
    )
