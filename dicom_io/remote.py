"""A remote application entity, and associations with it."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_io.errors import AssociationFailed
from dicom_io.tls import TlsFiles, requestor_context
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_PERMANENT_REJECT: Final = 1  # PS3.8 table 9-21

Handler = tuple[evt.EventType, Callable[[evt.Event], Any]]


@dataclass(frozen=True)
class RemoteAE:
    """A peer that objects are sent to.

    Attributes:
        ae_title: its AE title, which we call.
        host: its host name or address.
        port: its TCP port.
        calling_ae_title: our AE title, as this peer knows us.
        tls: files for TLS; None sends without.
        connection_timeout_seconds: time for the TCP connection and the TLS handshake.
        association_timeout_seconds: time for the answer to an association or release request.
        response_timeout_seconds: time for the answer to one object.
        network_timeout_seconds: longest wait for a peer that takes no data.
    """

    ae_title: str
    host: str
    port: int
    calling_ae_title: str = "MULTIMIX"
    tls: TlsFiles | None = None
    connection_timeout_seconds: float = 10.0
    association_timeout_seconds: float = 30.0
    response_timeout_seconds: float = 60.0
    network_timeout_seconds: float = 60.0

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


@contextmanager
def requested_association(
    remote: RemoteAE,
    contexts: list[PresentationContext],
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[Handler] = (),
) -> Iterator[Association]:
    """Request an association, and release it in the end.

    Args:
        remote: whom to call.
        contexts: the presentation contexts to propose.
        roles: the roles to propose (PS3.7 D.3.3.4), where they are not the default ones.
        handlers: what to do at events of pynetdicom.

    Yields:
        An association that is accepted, though perhaps without any of the contexts.

    Raises:
        AssociationFailed: it was not accepted.
        SettingsError: a TLS file cannot be used.
    """
    entity = ApplicationEntity(remote.calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = remote.connection_timeout_seconds
    entity.acse_timeout = remote.association_timeout_seconds
    entity.dimse_timeout = remote.response_timeout_seconds
    entity.network_timeout = remote.network_timeout_seconds
    tls_args = None if remote.tls is None else (requestor_context(remote.tls), remote.host)
    try:
        association = entity.associate(
            remote.host,
            remote.port,
            contexts=contexts,
            ae_title=remote.ae_title,
            tls_args=tls_args,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_CONN_OPEN, _tune_connection, [remote]), *handlers],
        )
    except OSError as cause:
        raise AssociationFailed(f"{remote} is unknown to the network: {cause.strerror}") from cause
    nothing_accepted = bool(association.rejected_contexts) and not association.accepted_contexts
    if not association.is_established and not nothing_accepted:
        raise _failure_of(association, remote)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _tune_connection(event: evt.Event, remote: RemoteAE) -> None:
    """No waiting for more data before sending (Nagle), and no waiting for ever for a dead peer."""
    wire = event.assoc.dul.socket
    if wire is not None and wire.socket is not None:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.socket.settimeout(remote.network_timeout_seconds)


def _failure_of(association: Association, remote: RemoteAE) -> AssociationFailed:
    answer = association.acceptor.primitive
    if association.is_rejected and isinstance(answer, A_ASSOCIATE):
        transient = answer.result != _PERMANENT_REJECT
        return AssociationFailed(
            f"{remote} rejected the association: {answer.reason_str.lower()} "
            f"(we call ourselves {association.requestor.ae_title})",
            transient,
        )
    return AssociationFailed(f"{remote} cannot be reached, or gave no answer to the association")
