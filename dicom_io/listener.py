"""The storage SCP: C-STORE and C-ECHO in, success answered only for what is durable.

An instance's way: bytes off the network -> checks -> fsync'd file -> ``Intake.instance_stored``
(which commits its row) -> 0x0000.
"""

import logging
import socket
import ssl
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Self, cast

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_io.acceptor_entity import acceptor_entity, silence_pynetdicom
from dicom_io.access_control import (
    AccessPolicy,
    AllowedPeer,
    AssociationFacts,
    Refusal,
    may_come_from,
    peer_of,
    printable_ae_title,
    refusal_of,
)
from dicom_io.association_server import AssociationServer
from dicom_io.bounded_association import AssociationLimits, open_association
from dicom_io.bounded_buffer import SharedBytes
from dicom_io.commitment_service import Answer, CommitmentService
from dicom_io.errors import SettingsError
from dicom_io.intake import Intake, ReceivedInstance
from dicom_io.listener_configuration import ListenerConfiguration
from dicom_io.storage import InstanceStore
from dicom_io.storage_service import SUCCESS, StorageService
from dicom_io.tls import ReloadingContext, TlsFiles, acceptor_context, certified_names
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES

__all__ = [
    "AllowedPeer",
    "AssociationFacts",
    "Intake",
    "Listener",
    "ListenerConfiguration",
    "ReceivedInstance",
    "Refusal",
    "TlsFiles",
]

_LOG = logging.getLogger(__name__)

_STRANGERS: Final = "strangers"


class Listener:
    """A running storage SCP.

    Args:
        configuration: how to listen, and to whom.
        store: where instances go.
        intake: who is told.
        commitment: who answers storage commitment; None does not offer it.
    """

    def __init__(
        self,
        configuration: ListenerConfiguration,
        store: InstanceStore,
        intake: Intake,
        commitment: CommitmentService | None = None,
    ) -> None:
        self._configuration = configuration
        self._store = store
        self._intake = intake
        self._storage = StorageService(store, intake)
        self._commitment = commitment
        self._policy = AccessPolicy(
            ae_title=configuration.ae_title.strip(),
            require_called_ae_title=configuration.require_called_ae_title,
            allowed_calling=configuration.allowed_calling,
            maximum_associations=configuration.maximum_associations,
            maximum_associations_per_peer=configuration.maximum_associations_per_peer,
        )
        self._limits = AssociationLimits(
            maximum_object_bytes=configuration.maximum_object_bytes,
            maximum_pdu_bytes=configuration.longest_pdu_bytes,
            network_timeout_seconds=configuration.idle_timeout_seconds,
            datasets=SharedBytes(configuration.maximum_received_bytes),
        )
        self._entity = acceptor_entity(configuration, commits=commitment is not None)
        self._accepted: dict[Association, AssociationFacts] = {}
        self._lock = threading.Lock()
        self._server: AssociationServer | None = None
        self._serving: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The TCP port that is listened on; the configured one before ``start``."""
        if self._server is None:
            return self._configuration.port
        return int(self._server.server_address[1])

    @property
    def open_associations(self) -> tuple[AssociationFacts, ...]:
        """The associations that are accepted and not ended."""
        with self._lock:
            return tuple(self._accepted.values())

    @property
    def received_bytes(self) -> int:
        """What is held in memory of objects that are being received, of all associations."""
        return self._limits.datasets.held

    def start(self) -> None:
        """Listen, in threads of its own; returns when connections are taken.

        Raises:
            SettingsError: the address cannot be listened on, or a TLS file cannot be used.
            StorageError: the store cannot be written.
        """
        configuration = self._configuration
        tls_context = None
        if configuration.tls is not None:
            tls_context = ReloadingContext(configuration.tls, acceptor_context)
        self._store.disk.remove_abandoned_parts()
        try:
            self._server = AssociationServer(
                (configuration.host, configuration.port),
                open_association=self._open_association,
                association_ended=self._association_ended,
                handshake_failed=self._on_handshake_failed,
                maximum_connections=configuration.maximum_connections,
                maximum_half_open_per_address=configuration.maximum_half_open_per_address,
                shares_with=self._shares_with,
                request_timeout_seconds=configuration.association_timeout_seconds,
                network_timeout_seconds=configuration.idle_timeout_seconds,
                maximum_association_seconds=configuration.maximum_association_seconds,
                tls_context=tls_context,
            )
        except OSError as cause:
            raise SettingsError(
                f"cannot listen on {configuration.host}:{configuration.port}: {cause.strerror}"
            ) from cause
        self._serving = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="listener", daemon=True
        )
        self._serving.start()
        _LOG.info("listening as %s on port %d", configuration.ae_title, self.port)

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Take no more connections, let open associations finish, then abort what is left.

        Args:
            grace_seconds: time for the open associations.
        """
        if self._server is None or self._serving is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._serving.join()
        self._server.end_associations(grace_seconds)
        self._server = self._serving = None

    def _open_association(self, connection: socket.socket, first_pdu: bytes) -> Association:
        association = open_association(
            self._entity, connection, first_pdu, self._entity.supported_contexts, self._limits
        )
        silence_pynetdicom(association)
        association.bind(evt.EVT_REQUESTED, self._on_requested, [certified_names(connection)])
        association.bind(evt.EVT_C_ECHO, _on_c_echo)
        association.bind(evt.EVT_C_STORE, self._on_c_store)
        if self._commitment is not None:
            association.bind(evt.EVT_N_ACTION, self._on_n_action)
            association.bind(evt.EVT_N_EVENT_REPORT, self._on_n_event_report)
        return association

    def _on_requested(self, event: evt.Event, names: frozenset[str]) -> None:
        """Accept or refuse; an exception here would let pynetdicom accept, so none may leave."""
        association = event.assoc
        facts = _facts_of(association, names)
        try:
            refusal = self._admit(association, facts)
        except Exception as cause:  # noqa: BLE001 - whatever is broken, the peer shall come back later
            _LOG.warning("an association cannot be taken: %s", type(cause).__name__)
            refusal = Refusal.UNAVAILABLE
        if refusal is None:
            self._withhold_storage(association, facts)
            return
        association.acse.send_reject(*refusal.reject)
        association.kill()
        # Who counts refusals tells of them without filling the disk; this is for the search.
        _LOG.debug(
            "association refused: %s (calling %s, called %s, from %s)",
            refusal.value,
            facts.calling_ae_title,
            facts.called_ae_title,
            facts.peer_address,
        )
        self._tell(lambda: self._intake.association_refused(facts, refusal))

    def _shares_with(self, address: str) -> str:
        """Addresses that nobody may call from share what one address may have half open."""
        return address if may_come_from(self._policy, address) else _STRANGERS

    def _on_handshake_failed(self, address: str, cause: ssl.SSLError) -> None:
        is_untrusted = isinstance(cause, ssl.SSLCertVerificationError) or (
            cause.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        )
        refusal = Refusal.NO_TRUSTED_CERTIFICATE if is_untrusted else Refusal.NO_TLS
        # Nobody has given a name yet.
        facts = AssociationFacts(str(uuid.uuid4()), "", "", address, datetime.now(UTC))
        self._tell(lambda: self._intake.association_refused(facts, refusal))

    def _admit(self, association: Association, facts: AssociationFacts) -> Refusal | None:
        has_room = self._store.disk.has_room()
        with self._lock:
            open_now = tuple(self._accepted.values())
            refusal = refusal_of(self._policy, facts, open_now, has_room)
            if refusal is not None:
                return refusal
            self._accepted[association] = facts
        try:
            self._intake.association_accepted(facts)
        except BaseException:
            with self._lock:
                del self._accepted[association]
            raise
        return None

    def _withhold_storage(self, association: Association, facts: AssociationFacts) -> None:
        """Accept no storage context of a peer that may call, but not send."""
        peer = peer_of(self._policy, facts)
        if peer is not None and not peer.may_send:
            association.acceptor.supported_contexts = [
                context
                for context in association.acceptor.supported_contexts
                if context.abstract_syntax not in CHEST_STORAGE_CLASSES
            ]

    def _association_ended(self, association: Association) -> None:
        with self._lock:
            facts = self._accepted.pop(association, None)
        if facts is not None:
            released = bool(association.is_released)
            self._tell(lambda: self._intake.association_ended(facts, released))

    def _on_c_store(self, event: evt.Event) -> Dataset:
        """Answer a C-STORE request; nothing but a status leaves."""
        return self._storage.answer(event, self._accepted[event.assoc])

    def _on_n_action(self, event: evt.Event) -> Answer:
        facts = self._accepted[event.assoc]
        peer = peer_of(self._policy, facts)
        return cast(CommitmentService, self._commitment).answer_request(
            event, facts, may_ask=peer is None or peer.may_send
        )

    def _on_n_event_report(self, event: evt.Event) -> Answer:
        return cast(CommitmentService, self._commitment).take_report(
            event, self._accepted[event.assoc]
        )

    def _tell(self, call: Callable[[], None]) -> None:
        """Report something that has happened already, whatever the intake answers."""
        try:
            call()
        except Exception as cause:  # noqa: BLE001 - the association is over either way
            _LOG.error("what became of an association was not recorded: %s", type(cause).__name__)


def _facts_of(association: Association, names: frozenset[str]) -> AssociationFacts:
    request = cast(A_ASSOCIATE, association.requestor.primitive)
    return AssociationFacts(
        association_uid=str(uuid.uuid4()),
        calling_ae_title=printable_ae_title(request.calling_ae_title),
        called_ae_title=printable_ae_title(request.called_ae_title),
        peer_address=str(association.requestor.address),
        started=datetime.now(UTC),
        certified_names=names,
    )


def _on_c_echo(event: evt.Event) -> int:
    return SUCCESS
