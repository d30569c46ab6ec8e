"""Who may open an association: AE titles, networks, certificates and limits."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from dicom_io.errors import SettingsError

_AE_TITLE_LIMIT: Final = 16  # longest AE title, PS3.5 table 6.2-1


@dataclass(frozen=True)
class AssociationFacts:
    """One association, as far as it matters to anyone but the network.

    Attributes:
        association_uid: our own name for it (UUID, version 4).
        calling_ae_title: who the peer says it is; printable, not trusted.
        called_ae_title: whom the peer wants to reach.
        peer_address: IP address of the peer.
        started: when it was requested, in UTC.
        certified_names: names that its TLS certificate proves, in lower case; empty without TLS.
    """

    association_uid: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    started: datetime
    certified_names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AllowedPeer:
    """A peer that may call us.

    Attributes:
        ae_title: its calling AE title; None for any.
        networks: addresses or networks (CIDR) it may come from; empty for any.
        maximum_associations: associations at a time; None for no limit of its own.
        may_send: whether it may send instances; else it may only verify and report commitment.
        certified_name: name that its certificate must prove; None for any that we trust. Without
            it every peer of a trusted authority may call itself by this AE title.
    """

    ae_title: str | None
    networks: tuple[str, ...] = ()
    maximum_associations: int | None = None
    may_send: bool = True
    certified_name: str | None = None

    def __post_init__(self) -> None:
        for network in self.networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as cause:
                raise SettingsError(
                    f"the networks of the peer {self.ae_title!r} hold {network!r}, "
                    "which is no address or network in CIDR notation"
                ) from cause

    def is_called(self, ae_title: str) -> bool:
        """Whether this is about an AE title."""
        return self.ae_title in (None, ae_title)

    def may_come_from(self, address: str) -> bool:
        """Whether an IP address lies in one of the peer's networks."""
        if not self.networks:
            return True
        source = ipaddress.ip_address(address)
        mapped = getattr(source, "ipv4_mapped", None)
        source = mapped if mapped is not None else source
        return any(source in ipaddress.ip_network(network) for network in self.networks)

    def is_certified_by(self, names: frozenset[str]) -> bool:
        """Whether a certificate that proves these names is the peer's."""
        return self.certified_name is None or self.certified_name.lower() in names


class Refusal(Enum):
    """Why an association is refused; the value is what the log and the operator read."""

    CALLED_AE_TITLE = "called AE title is not ours"
    UNKNOWN_CALLING = "calling AE title is not on the list of allowed peers"
    WRONG_NETWORK = "the peer is allowed, but not from this address"
    WRONG_CERTIFICATE = "the peer is allowed, but not with this certificate"
    TOO_MANY = "too many associations are open"
    TOO_MANY_OF_PEER = "the peer has too many associations open"
    LOW_DISK = "free disk space is below the low-water mark"
    UNAVAILABLE = "the node cannot take instances right now"
    NO_TRUSTED_CERTIFICATE = "the peer has no certificate that we trust"
    NO_TLS = "no TLS could be agreed on with the peer"

    @property
    def reject(self) -> tuple[int, int, int]:
        """Result, source and reason of the A-ASSOCIATE-RJ (PS3.8 table 9-21).

        Where TLS has failed, nobody is there to be answered.
        """
        return _REJECT[self]


_PERMANENT: Final = 1
_TRANSIENT: Final = 2
_BY_USER: Final = 1
_BY_PRESENTATION: Final = 3

_REJECT: Final = {
    Refusal.CALLED_AE_TITLE: (_PERMANENT, _BY_USER, 7),
    Refusal.UNKNOWN_CALLING: (_PERMANENT, _BY_USER, 3),
    Refusal.WRONG_NETWORK: (_PERMANENT, _BY_USER, 3),
    Refusal.WRONG_CERTIFICATE: (_PERMANENT, _BY_USER, 3),
    Refusal.TOO_MANY: (_TRANSIENT, _BY_PRESENTATION, 2),
    Refusal.TOO_MANY_OF_PEER: (_TRANSIENT, _BY_PRESENTATION, 2),
    Refusal.LOW_DISK: (_TRANSIENT, _BY_PRESENTATION, 2),
    Refusal.UNAVAILABLE: (_TRANSIENT, _BY_PRESENTATION, 1),
}


@dataclass(frozen=True)
class AccessPolicy:
    """The rules for opening associations.

    Attributes:
        ae_title: our AE title.
        require_called_ae_title: whether a peer must call us by it.
        allowed_calling: the peers that may call; empty for anyone. Of several that fit an
            association, the first counts.
        maximum_associations: associations at a time, of all peers together.
        maximum_associations_per_peer: associations at a time of one peer, where the list says
            nothing else; None for no limit. A peer is a calling AE title and, where an entry admits
            any AE title, an address.
    """

    ae_title: str
    require_called_ae_title: bool
    allowed_calling: tuple[AllowedPeer, ...]
    maximum_associations: int
    maximum_associations_per_peer: int | None = None


def peer_of(policy: AccessPolicy, facts: AssociationFacts) -> AllowedPeer | None:
    """The entry of the list that an association falls under; None if there is none."""
    for peer in _by_name_and_address(policy, facts):
        if peer.is_certified_by(facts.certified_names):
            return peer
    return None


def refusal_of(
    policy: AccessPolicy,
    facts: AssociationFacts,
    open_now: tuple[AssociationFacts, ...],
    disk_has_room: bool,
) -> Refusal | None:
    """Decide about an association request.

    Args:
        policy: the rules.
        facts: who asks, and for whom.
        open_now: the associations that are open already, without this one.
        disk_has_room: whether free space is above the low-water mark.

    Returns:
        Why it is refused, or None if it is accepted.
    """
    if policy.require_called_ae_title and facts.called_ae_title != policy.ae_title:
        return Refusal.CALLED_AE_TITLE
    peer = peer_of(policy, facts)
    if policy.allowed_calling and peer is None:
        return _unlisted(policy, facts)
    if len(open_now) >= policy.maximum_associations:
        return Refusal.TOO_MANY
    limit = peer.maximum_associations if peer is not None else None
    limit = policy.maximum_associations_per_peer if limit is None else limit
    if limit is not None:
        of_peer = sum(_are_of_one_peer(policy, facts, other) for other in open_now)
        if of_peer >= limit:
            return Refusal.TOO_MANY_OF_PEER
    return None if disk_has_room else Refusal.LOW_DISK


def _unlisted(policy: AccessPolicy, facts: AssociationFacts) -> Refusal:
    """What keeps an association off the list that falls under none of its entries."""
    if _by_name_and_address(policy, facts):
        return Refusal.WRONG_CERTIFICATE
    named = any(entry.is_called(facts.calling_ae_title) for entry in policy.allowed_calling)
    return Refusal.WRONG_NETWORK if named else Refusal.UNKNOWN_CALLING


def _by_name_and_address(policy: AccessPolicy, facts: AssociationFacts) -> list[AllowedPeer]:
    return [
        peer
        for peer in policy.allowed_calling
        if peer.is_called(facts.calling_ae_title) and peer.may_come_from(facts.peer_address)
    ]


def may_come_from(policy: AccessPolicy, address: str) -> bool:
    """Whether anybody may call from an IP address."""
    allowed = policy.allowed_calling
    return not allowed or any(peer.may_come_from(address) for peer in allowed)


def _are_of_one_peer(policy: AccessPolicy, one: AssociationFacts, other: AssociationFacts) -> bool:
    """Whether two associations count together; who may take any AE title could take many."""
    if one.calling_ae_title == other.calling_ae_title:
        return True
    peer = peer_of(policy, one)
    is_anyone = peer is not None and peer.ae_title is None
    return is_anyone and one.peer_address == other.peer_address and peer_of(policy, other) is peer


def printable_ae_title(title: str | None) -> str:
    """An AE title as it may stand in a log or a table: 16 printable ASCII characters at most."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in (title or ""))
    return shown.strip()[:_AE_TITLE_LIMIT]
