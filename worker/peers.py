"""The targets of the settings as rows of the database, which keep what waits for them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from worker.addresses import Target
from worker.database import insert_if_absent
from worker.tables import Peer


def enter_targets(session: Session, targets: Sequence[Target]) -> None:
    """Bring the peers in line with the settings.

    A changed address keeps the row, so what waits for the target goes to the new address; a target
    that is no longer named gets nothing new. A target with a changed address may be called at
    once, whatever failed at the old one.

    Args:
        session: the transaction.
        targets: those of the settings.
    """
    for target in targets:
        insert_if_absent(
            session,
            Peer,
            name=target.name,
            ae_title=target.ae_title,
            host=target.host,
            port=target.port,
            configured=True,
            failures=0,
        )
        peer = session.scalars(select(Peer).where(Peer.name == target.name)).one()
        address = (target.ae_title, target.host, target.port)
        if (peer.ae_title, peer.host, peer.port) != address:
            peer.ae_title, peer.host, peer.port = address
            peer.failures, peer.next_attempt_at = 0, None
        peer.configured = True
    named = {target.name for target in targets}
    for peer in session.scalars(select(Peer).where(Peer.configured)):
        if peer.name not in named:
            peer.configured = False


def configured_peer_keys(session: Session) -> list[int]:
    """Keys of the targets that get results now."""
    return list(
        session.scalars(select(Peer.peer_key).where(Peer.configured).order_by(Peer.peer_key))
    )
