"""The targets of the settings as rows of the database, which keep what waits for them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.result_profile import profile, profile_text
from dicom_io.uids import ResultKind
from worker.addresses import Target
from worker.database import insert_if_absent
from worker.tables import Peer


def enter_targets(session: Session, targets: Sequence[Target]) -> None:
    """Bring the peers in line with the settings.

    A changed address keeps the row, so what waits for the target goes to the new address; a target
    that is no longer named is not called, and what waits for it goes on waiting. A target with a
    changed address may be called at once, whatever failed at the old one. A changed profile counts
    for what is read from then on.

    Args:
        session: the transaction.
        targets: those of the settings.
    """
    for target in targets:
        address = {
            "ae_title": target.ae_title or "",
            "host": target.host or "",
            "port": target.port or 0,
            "url": target.url,
        }
        results = profile_text(target.results)
        insert_if_absent(
            session,
            Peer,
            name=target.name,
            **address,
            results=results,
            configured=True,
            failures=0,
        )
        peer = session.scalars(select(Peer).where(Peer.name == target.name)).one()
        if {column: getattr(peer, column) for column in address} != address:
            for column, value in address.items():
                setattr(peer, column, value)
            peer.failures, peer.next_attempt_at = 0, None
        peer.results, peer.commits = results, target.commit
        peer.configured = True
    named = {target.name for target in targets}
    for peer in session.scalars(select(Peer).where(Peer.configured)):
        if peer.name not in named:
            peer.configured = False


def configured_profiles(session: Session) -> dict[int, frozenset[ResultKind]]:
    """The kinds of result that each target gets which the settings name now, by peer key."""
    rows = session.execute(
        select(Peer.peer_key, Peer.results).where(Peer.configured).order_by(Peer.peer_key)
    )
    return {peer_key: profile(results.split("+")) for peer_key, results in rows}


def written_address(url: str | None, host: str, port: int) -> str:
    """Where a target is, as an operator writes it: ``HOST:PORT`` or the URL."""
    return url or f"{host}:{port}"
