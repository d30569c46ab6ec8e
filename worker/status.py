"""What became of each study: for the operator as a table, for programs as JSON."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload

from dicom_io.errors import RejectionReason
from dicom_io.storage import InstanceStore
from worker.peers import written_address
from worker.retention import held
from worker.signs_of_life import parts_at_work
from worker.storage_watch import storage_status
from worker.studies import StudyState
from worker.tables import (
    Delivery,
    Inference,
    InferenceState,
    Instance,
    Peer,
    Result,
    Study,
)

_COLOURS = {
    StudyState.DONE: "green",
    StudyState.FAILED: "bold red",
    StudyState.REJECTED: "yellow",
}


@dataclass(frozen=True)
class StatusQuery:
    """Which studies to tell of.

    Attributes:
        states: only these; empty for all.
        study_uid: only this one.
        limit: most studies, the latest first.
    """

    states: tuple[StudyState, ...] = ()
    study_uid: str | None = None
    limit: int = 100


def read_status(session: Session, store: InstanceStore, query: StatusQuery) -> dict[str, Any]:
    """Everything that is known of studies and targets, as JSON values.

    Args:
        session: a transaction.
        store: where result files lie.
        query: which studies.

    Returns:
        ``studies``, the latest first; ``counts`` of all studies by state; what is ``held`` on the
        disk; ``storage``; ``parts`` with their last sign of life; ``targets``.
    """
    statement = (
        select(Study)
        .options(
            selectinload(Study.instances)
            .selectinload(Instance.inferences)
            .selectinload(Inference.results)
            .selectinload(Result.deliveries)
            .joinedload(Delivery.peer),
            selectinload(Study.instances)
            .selectinload(Instance.inferences)
            .joinedload(Inference.model),
        )
        .order_by(Study.received_at.desc(), Study.study_key.desc())
        .limit(query.limit)
    )
    if query.states:
        statement = statement.where(Study.state.in_(query.states))
    if query.study_uid is not None:
        statement = statement.where(Study.study_uid == query.study_uid)
    counts = session.execute(select(Study.state, func.count()).group_by(Study.state))
    return {
        "counts": {state.value: count for state, count in counts},
        "held": _held(session),
        "storage": storage_status(session, store),
        "parts": {
            part: seen_at.isoformat(timespec="seconds")
            for part, seen_at in parts_at_work(session).items()
        },
        "targets": [_target(peer) for peer in session.scalars(select(Peer).order_by(Peer.name))],
        "studies": [_study(study, store) for study in session.scalars(statement)],
    }


def print_status(status: dict[str, Any], console: Console) -> None:
    """Print a status as tables."""
    table = Table(title="Studies", expand=False)
    for name in (
        "received",
        "study",
        "state",
        "rev",
        "films",
        "verdict",
        "prob.",
        "sent",
        "reason",
    ):
        table.add_column(name, overflow="fold")
    for study in status["studies"]:
        colour = _COLOURS.get(StudyState(study["state"]), "")
        state = f"[{colour}]{study['state']}[/{colour}]" if colour else study["state"]
        probability = study["probability"]
        deliveries = study["deliveries"]
        table.add_row(
            study["received_at"][:19].replace("T", " "),
            escape(study["study_uid"] or "") or f"(none, no. {study['study_key']})",
            state,
            str(study["revision"]),
            str(len(study["instances"])),
            study["verdict"] or "",
            "" if probability is None else f"{probability:.2f}",
            f"{deliveries.get('delivered', 0)}/{sum(deliveries.values())}" if deliveries else "",
            escape("; ".join(_reasons(study))),
        )
    console.print(table, highlight=False)
    for target in status["targets"]:
        if target["failures"]:
            console.print(
                f"target {target['name']}: {target['last_failure']}; "
                f"{target['failures']} x, next attempt {target['next_attempt_at']}",
                style="red",
                markup=False,
                highlight=False,
            )
    holding = status["held"]
    console.print(
        f"held: {holding['studies']} studies, {holding['bytes'] / (1 << 30):.2f} GiB, "
        f"the oldest finished {holding['oldest_finished_at'] or '-'}",
        highlight=False,
    )
    if status["storage"]["problem"]:
        console.print(
            f"no instance is taken: {status['storage']['problem']} ({status['storage']['path']})",
            style="red",
            markup=False,
            highlight=False,
        )
    for part, seen_at in status["parts"].items():
        console.print(f"{part}: last sign of life {seen_at}", markup=False, highlight=False)
    counts = ", ".join(f"{count} {state}" for state, count in status["counts"].items())
    console.print(f"all studies: {counts or 'none'}", highlight=False)


def _reasons(study: dict[str, Any]) -> list[str]:
    """The study's own reason, else those of the films that got no result."""
    if study["reason"]:
        return [study["reason"]]
    return sorted({film["reason"] for film in study["instances"] if film["reason"]})


def _study(study: Study, store: InstanceStore) -> dict[str, Any]:
    films = [_instance(instance, store) for instance in study.instances]
    read = [film for film in films if film["probability"] is not None]
    worst = max(read, key=lambda film: film["probability"], default=None)
    deliveries: dict[str, int] = {}
    for film in films:
        for result in film["results"]:
            for delivery in result["deliveries"]:
                deliveries[delivery["state"]] = deliveries.get(delivery["state"], 0) + 1
    return {
        "study_key": study.study_key,
        "study_uid": study.study_uid,
        "state": study.state.value,
        "revision": study.revision,
        "reason": study.reason,
        "verdict": worst["verdict"] if worst else None,
        "probability": worst["probability"] if worst else None,
        "received_at": study.received_at.isoformat(),
        "finished_at": study.finished_at.isoformat() if study.finished_at else None,
        "deliveries": deliveries,
        "instances": films,
    }


def _instance(instance: Instance, store: InstanceStore) -> dict[str, Any]:
    """One film under the model that read it last."""
    inference = max(instance.inferences, key=lambda i: i.inference_key, default=None)
    film: dict[str, Any] = {
        "sop_instance_uid": instance.sop_instance_uid,
        "revision": instance.revision,
        "path": str(store.path_of(instance.relative_path)),
        "state": "received",
        "reason": None,
        "verdict": None,
        "probability": None,
        "lung_area_percent": None,
        "lung_area_cm2": None,
        "model": None,
        "results": [],
    }
    if instance.rejection is not None:
        reason = RejectionReason[instance.rejection].value
        detail = f" ({instance.rejection_detail})" if instance.rejection_detail else ""
        film |= {"state": InferenceState.REJECTED.value, "reason": reason + detail}
    if inference is not None:
        film |= {
            "state": inference.state.value,
            "reason": inference.reason,
            "verdict": inference.verdict.value if inference.verdict else None,
            "probability": inference.probability,
            "lung_area_percent": inference.lung_area_percent,
            "lung_area_cm2": inference.lung_area_cm2,
            "model": f"{inference.model.name} {inference.model.version}",
        }
    film["results"] = [
        _result(result, store)
        for result in sorted(
            (result for each in instance.inferences for result in each.results),
            key=lambda result: result.result_key,
        )
    ]
    return film


def _result(result: Result, store: InstanceStore) -> dict[str, Any]:
    return {
        "kind": result.kind.value,
        "sop_instance_uid": result.sop_instance_uid,
        "revision": result.revision,
        "superseded": result.superseded_by_key is not None,
        "path": str(store.path_of(result.relative_path)),
        "deliveries": [
            {
                "target": delivery.peer.name,
                "state": delivery.state.value,
                "instead_of": delivery.instead_of.value if delivery.instead_of else None,
                "attempts": delivery.attempts,
                "status": None if delivery.status is None else f"0x{delivery.status:04X}",
                "reason": delivery.reason,
            }
            for delivery in result.deliveries
        ],
    }


def _held(session: Session) -> dict[str, Any]:
    found = held(session)
    oldest = found.oldest_finished_at
    return {
        "studies": found.studies,
        "bytes": found.bytes_held,
        "oldest_finished_at": oldest.isoformat() if oldest else None,
        "files_to_remove": found.files_to_remove,
    }


def _target(peer: Peer) -> dict[str, Any]:
    return {
        "name": peer.name,
        "ae_title": peer.ae_title,
        "address": written_address(peer.url, peer.host, peer.port),
        "results": peer.results,
        "configured": peer.configured,
        "failures": peer.failures,
        "last_failure": peer.last_failure,
        "next_attempt_at": peer.next_attempt_at.isoformat() if peer.next_attempt_at else None,
    }
