"""What an operator is told of the targets: how sending to each goes, and what waits for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicom_io.result_profile import profile_text
from worker.addresses import Target
from worker.peers import written_address
from worker.tables import UNSETTLED, Delivery, Peer


@dataclass(frozen=True)
class ListedTarget:
    """One target, as the node serves it or, where it does not yet, as the settings name it.

    Attributes:
        name: how this node calls it.
        ae_title: of a remote AE; empty for a DICOMweb service, as its host, and its port 0.
        host: of a remote AE.
        port: of a remote AE.
        url: root of a DICOMweb service; None for a remote AE.
        results: the kinds of result that it gets, e.g. ``seg+sc``.
        served: whether it gets what is read now.
        waiting: results that it has not got, or not committed to keep.
        waiting_since: when the oldest of them was made; None without any.
        last_failure: what the last association failed of; None if it did not.
    """

    name: str
    ae_title: str
    host: str
    port: int
    url: str | None
    results: str
    served: bool
    waiting: int = 0
    waiting_since: datetime | None = None
    last_failure: str | None = None

    @property
    def address(self) -> str:
        """As an operator writes it."""
        return written_address(self.url, self.host, self.port)


def list_targets(session: Session, targets: Sequence[Target]) -> list[ListedTarget]:
    """All targets that the node has ever served, and those that only the settings name.

    Nothing is changed by it: the settings of a command need not be those of the node.

    Args:
        session: a transaction.
        targets: those of the settings.
    """
    rows = session.execute(
        select(Delivery.peer_key, func.count(), func.min(Delivery.created_at))
        .where(Delivery.state.in_(UNSETTLED))
        .group_by(Delivery.peer_key)
    )
    waiting = {peer_key: (count, since) for peer_key, count, since in rows}
    listed = {}
    for peer in session.scalars(select(Peer)):
        count, since = waiting.get(peer.peer_key, (0, None))
        listed[peer.name] = ListedTarget(
            name=peer.name,
            ae_title=peer.ae_title,
            host=peer.host,
            port=peer.port,
            url=peer.url,
            results=peer.results,
            served=peer.configured,
            waiting=count,
            waiting_since=since,
            last_failure=peer.last_failure,
        )
    return sorted(
        (_as_named(targets) | listed).values(), key=lambda target: (not target.served, target.name)
    )


def disagreements(listed: Sequence[ListedTarget], targets: Sequence[Target]) -> Iterator[str]:
    """Where the settings of a command say something else than the node goes by.

    Args:
        listed: of ``list_targets``.
        targets: those of the settings.
    """
    named = _as_named(targets)
    for target in listed:
        wanted = named.get(target.name)
        if wanted is None:
            if target.served:
                yield (
                    f"these settings do not name {target.name}, which the node serves; are they "
                    "the node's?"
                )
        elif not target.served:
            yield f"{target.name} is served from the node's next start on"
        elif (wanted.ae_title, wanted.address, wanted.results) != (
            target.ae_title,
            target.address,
            target.results,
        ):
            yield (
                f"these settings have {target.name} as {wanted.ae_title} {wanted.address} "
                f"{wanted.results}, which the node goes by from its next start on"
            )


def _as_named(targets: Sequence[Target]) -> dict[str, ListedTarget]:
    """The targets of the settings, as if nothing were known of them."""
    return {
        target.name: ListedTarget(
            target.name,
            target.ae_title or "",
            target.host or "",
            target.port or 0,
            target.url,
            profile_text(target.results),
            served=False,
        )
        for target in targets
    }
