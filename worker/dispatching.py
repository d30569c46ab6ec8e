"""Which result goes to which target: by its profile, with stand-ins for what it refuses."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.result_profile import DEFAULT_PROFILE, substitutes_of, with_substitutes
from dicom_io.uids import ResultKind
from worker.database import insert_if_absent
from worker.peers import configured_profiles
from worker.tables import Delivery, DeliveryState, Peer, Result

# A delivery in one of these states brings no object to the target.
_GIVES_NOTHING: Final = (
    DeliveryState.SUBSTITUTED,
    DeliveryState.NOT_TAKEN,
    DeliveryState.TARGET_REMOVED,
)


@dataclass(frozen=True)
class KindsToMake:
    """Which result objects are made of a film.

    Attributes:
        wanted: those that some target is to get.
        spares: those that may be sent in place of one of them.
    """

    wanted: frozenset[ResultKind]
    spares: frozenset[ResultKind]


def kinds_to_make(session: Session) -> KindsToMake:
    """What the targets of the settings can need; without a target the default profile."""
    profiles = configured_profiles(session).values()
    if not profiles:
        return KindsToMake(DEFAULT_PROFILE, frozenset())
    wanted = frozenset[ResultKind]().union(*profiles)
    return KindsToMake(wanted, with_substitutes(wanted) - wanted)


def call_for_deliveries(session: Session, study_key: int, now: datetime) -> None:
    """Enter what each target is to get of a study and has not been asked to take."""
    made: defaultdict[int, dict[ResultKind, int]] = defaultdict(dict)
    for result in session.scalars(
        select(Result)
        .where(Result.study_key == study_key, Result.superseded_by_key.is_(None))
        .order_by(Result.result_key)
    ):
        made[result.inference_key][result.kind] = result.result_key
    for peer_key, profile in configured_profiles(session).items():
        for result_keys in made.values():
            for kind, instead_of in _chosen(profile, result_keys).items():
                _enter(session, study_key, result_keys[kind], peer_key, instead_of, now)


def peers_to_wake(session: Session, study_key: int) -> list[int]:
    """Keys of the peers of the settings for which results of a study wait to be sent."""
    return list(
        session.scalars(
            select(Delivery.peer_key)
            .join(Peer)
            .where(
                Delivery.study_key == study_key,
                Delivery.state == DeliveryState.PENDING,
                Peer.configured,
            )
            .distinct()
        )
    )


def call_for_substitute(session: Session, refused: Delivery, now: datetime) -> ResultKind | None:
    """Enter what is sent in place of a result whose kind the target does not take.

    What is on its way to the target already, or has arrived there, stands in without being sent a
    second time. Where nothing is left, neither have those results been taken for which the refused
    one stood in.

    Args:
        session: the transaction.
        refused: the delivery; its new state is set here.
        now: the time.

    Returns:
        The kind that is sent instead; None if the target takes nothing of the kind.
    """
    result = refused.result
    made = {
        other.kind: other.result_key
        for other in session.scalars(
            select(Result).where(
                Result.inference_key == result.inference_key, Result.superseded_by_key.is_(None)
            )
        )
    }
    deliveries = {
        delivery.result.kind: delivery
        for delivery in session.scalars(
            select(Delivery)
            .join(Result)
            .where(
                Result.inference_key == result.inference_key, Delivery.peer_key == refused.peer_key
            )
        )
    }
    for kind in substitutes_of(result.kind):
        known = deliveries.get(kind)
        if known is not None and known.state in _GIVES_NOTHING:
            continue
        if known is None and kind in made:
            _enter(session, refused.study_key, made[kind], refused.peer_key, result.kind, now)
        if known is not None or kind in made:
            refused.state = DeliveryState.SUBSTITUTED
            return kind
    refused.state = DeliveryState.NOT_TAKEN
    _withdraw_substitutions(deliveries)
    return None


def _chosen(
    profile: frozenset[ResultKind], made: Mapping[ResultKind, int]
) -> dict[ResultKind, ResultKind | None]:
    """What of a film goes to a target, and instead of what.

    Films that were read under other settings may lack a kind; the best stand-in goes then.
    """
    chosen: dict[ResultKind, ResultKind | None] = {kind: None for kind in made if kind in profile}
    for kind in sorted(profile - made.keys(), key=lambda kind: kind.value):
        substitute = next((other for other in substitutes_of(kind) if other in made), None)
        if substitute is not None:
            chosen.setdefault(substitute, kind)
    return chosen


def _withdraw_substitutions(deliveries: Mapping[ResultKind, Delivery]) -> None:
    """Results whose stand-ins were all refused count as not taken."""
    giving = {kind for kind, delivery in deliveries.items() if delivery.state not in _GIVES_NOTHING}
    for kind, delivery in deliveries.items():
        if delivery.state is DeliveryState.SUBSTITUTED and giving.isdisjoint(substitutes_of(kind)):
            delivery.state = DeliveryState.NOT_TAKEN


def _enter(
    session: Session,
    study_key: int,
    result_key: int,
    peer_key: int,
    instead_of: ResultKind | None,
    now: datetime,
) -> None:
    insert_if_absent(
        session,
        Delivery,
        study_key=study_key,
        result_key=result_key,
        peer_key=peer_key,
        instead_of=instead_of,
        state=DeliveryState.PENDING,
        attempts=0,
        created_at=now,
        next_attempt_at=now,
    )
