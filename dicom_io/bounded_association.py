"""An accepted association that no peer can make grow without bound.

pynetdicom believes a peer's lengths: a PDU of 4 GB, a dataset without end, a message queue that
nobody reads. Here every one of them has a limit, and a PDU that began must end in time.
"""

import logging
import queue
import socket
import threading
import time
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_io.bounded_buffer import BoundedBuffer, SharedBytes
from dicom_io.quiet_provider import QuietProvider

_LOG = logging.getLogger(__name__)

_COMMAND_SET_LIMIT: Final = 1 << 16
_WAITING_MESSAGES_LIMIT: Final = 4
_CHUNK_BYTES: Final = 1 << 18
# A PDU may take the network timeout and, on top, as long as its length takes at this rate.
_SLOWEST_BYTES_PER_SECOND: Final = 1 << 15
_INVALID_PDU: Final = "Evt19"  # PS3.8 table 9-10: the state machine answers it with an A-ABORT
_ABORT_SECONDS: Final = 2.0


@dataclass(frozen=True)
class AssociationLimits:
    """What one association may use.

    Attributes:
        maximum_object_bytes: longest encoded dataset that is kept in memory.
        maximum_pdu_bytes: longest PDU that is read.
        network_timeout_seconds: longest silence inside a PDU.
        datasets: what it may keep in memory together with all other associations.
    """

    maximum_object_bytes: int
    maximum_pdu_bytes: int
    network_timeout_seconds: float
    datasets: SharedBytes


def open_association(
    entity: ApplicationEntity,
    connection: socket.socket,
    first_pdu: bytes,
    contexts: list[PresentationContext],
    limits: AssociationLimits,
) -> Association:
    """Make an association acceptor of a connection; the caller binds handlers and starts it.

    Args:
        entity: our application entity.
        connection: the connection, TLS already established where it is wanted.
        first_pdu: what was already read of it.
        contexts: the presentation contexts to accept.
        limits: what the association may use.

    Returns:
        An association that is not started yet.
    """
    association = _GuardedAssociation(entity, "acceptor")
    association.dul = QuietProvider(association)
    # The timers belong to the provider, so they are set anew.
    association.acse_timeout = entity.acse_timeout
    association.network_timeout = entity.network_timeout
    association.set_socket(_BoundedSocket(association, connection, first_pdu, limits))
    association.dimse = _BoundedMessages(association, limits)
    acceptor, requestor = association.acceptor, association.requestor
    acceptor.ae_title = entity.ae_title
    acceptor.maximum_length = entity.maximum_pdu_size
    acceptor.implementation_class_uid = entity.implementation_class_uid
    acceptor.implementation_version_name = entity.implementation_version_name
    acceptor.supported_contexts = deepcopy(contexts)
    acceptor.address_info = AddressInformation.from_tuple(connection.getsockname())
    requestor.address_info = AddressInformation.from_tuple(connection.getpeername())
    return association


def abort_association(association: Association) -> None:
    """Abort with an A-ABORT if the peer listens, and by cutting the connection if it does not."""
    cut = threading.Timer(_ABORT_SECONDS, _cut_connection, [association])
    cut.start()
    try:
        association.abort(block=True)
        association.kill()
    finally:
        cut.cancel()


def forget_messages(association: Association) -> None:
    """Free the memory of what came over an association that has ended."""
    if isinstance(association.dimse, _BoundedMessages):
        association.dimse.forget()


def _cut_connection(association: Association) -> None:
    wire = association.dul.socket.socket if association.dul.socket else None
    if wire is not None:
        try:
            wire.shutdown(socket.SHUT_RDWR)
        except OSError as cause:
            _LOG.debug("the connection was closed already: %s", cause)


class _GuardedAssociation(Association):
    """An association that a request which cannot be negotiated aborts, and does not break.

    pynetdicom raises on what it does not expect in a request, e.g. a presentation context without
    transfer syntax; its thread would end without a word, and the peer would wait.
    """

    def run_reactor(self) -> None:
        """Serve the association until its end."""
        try:
            super().run_reactor()
        except Exception as cause:  # noqa: BLE001 - a thread has nobody to tell
            _LOG.debug("an association could not be served: %s", type(cause).__name__)
            abort_association(self)


class _BoundedSocket(AssociationSocket):
    """A socket that first gives back what was read ahead, and reads no more than the limits."""

    def __init__(
        self,
        association: Association,
        connection: socket.socket,
        read_ahead: bytes,
        limits: AssociationLimits,
    ) -> None:
        super().__init__(association, client_socket=connection)
        self._read_ahead = read_ahead
        self._limits = limits

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return bool(self._read_ahead) or super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, or fewer if the peer closes the connection.

        Raises:
            ConnectionAbortedError: the peer announces a PDU beyond the limit.
            TimeoutError: the bytes did not come in time.
        """
        if nr_bytes > self._limits.maximum_pdu_bytes:
            raise ConnectionAbortedError(f"the peer announces a PDU of {nr_bytes} bytes")
        received = bytearray(self._read_ahead[:nr_bytes])
        self._read_ahead = self._read_ahead[nr_bytes:]
        if len(received) == nr_bytes or self.socket is None:
            return received
        allowance = self._limits.network_timeout_seconds + nr_bytes / _SLOWEST_BYTES_PER_SECOND
        try:
            return receive_exactly(self.socket, nr_bytes, time.monotonic() + allowance, received)
        finally:
            self.socket.settimeout(self._limits.network_timeout_seconds)


class _BoundedMessages(DIMSEServiceProvider):
    """DIMSE messages of limited length, and only a few of them waiting."""

    def __init__(self, association: Association, limits: AssociationLimits) -> None:
        super().__init__(association)
        self._limits = limits

    def forget(self) -> None:
        """Let go of what was received: associations refer to themselves, and stay for a while."""
        self.message = None
        self.msg_queue = queue.Queue()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add a fragment to the message that is being received."""
        if self.message is None:
            if self.msg_queue.qsize() >= _WAITING_MESSAGES_LIMIT:
                self.dul.event_queue.put(_INVALID_PDU)
                return
            self.message = DIMSEMessage()
            self.message.encoded_command_set = BoundedBuffer(_COMMAND_SET_LIMIT)
            self.message.data_set = BoundedBuffer(
                self._limits.maximum_object_bytes, self._limits.datasets
            )
        if getattr(self.message.encoded_command_set, "overflowed", False):
            self.dul.event_queue.put(_INVALID_PDU)
            return
        try:
            super().receive_primitive(primitive)
        except Exception as cause:  # noqa: BLE001 - a malformed command set raises anything
            _LOG.info("a peer sent a malformed message: %s", type(cause).__name__)
            self.dul.event_queue.put(_INVALID_PDU)


def receive_exactly(
    connection: socket.socket,
    count: int,
    deadline: float,
    received: bytearray | None = None,
) -> bytearray:
    """Read from a connection until there is enough, the peer is gone, or time is up.

    Memory grows with what has come, not with what was announced.

    Args:
        connection: where to read from; its timeout is changed.
        count: bytes to have at the end.
        deadline: on the monotonic clock, in seconds.
        received: what is there already; it is added to.

    Returns:
        ``count`` bytes, or fewer if the peer closed the connection.

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the connection is broken.
    """
    received = bytearray() if received is None else received
    while len(received) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the peer is too slow")
        connection.settimeout(remaining)
        chunk = connection.recv(min(_CHUNK_BYTES, count - len(received)))
        if not chunk:
            break
        received += chunk
    return received
