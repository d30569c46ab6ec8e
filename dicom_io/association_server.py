"""From TCP connections to associations: each in its own thread, from handshake to certain end.

A connection costs one thread and no association until a whole A-ASSOCIATE-RQ has come, so bare TCP
connects (a load balancer's health check, a port scan) leave nothing behind. TLS handshakes run in
the connection's thread, so a slow one holds up nobody.
"""

import logging
import socket
import socketserver
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from pynetdicom.association import Association

from dicom_io.bounded_association import abort_association, forget_messages, receive_exactly

_LOG = logging.getLogger(__name__)

_PDU_HEADER_BYTES: Final = 6
_ASSOCIATE_REQUEST: Final = 0x01
# 128 presentation contexts with every transfer syntax there is take about 150 KB. Whatever comes is
# taken apart before it is known who asks, at about half a second for a megabyte.
_LONGEST_ASSOCIATE_REQUEST: Final = 1 << 18
_ABORT_UNEXPECTED_PDU: Final = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x02"  # PS3.8 9.3.8
_LAST_WORDS_SECONDS: Final = 2.0

# What the system says where a peer has hung up; nobody is told of health checks.
_GONE: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

OpenAssociation = Callable[[socket.socket, bytes], Association]
AssociationEnded = Callable[[Association], None]
HandshakeFailed = Callable[[str, ssl.SSLError], None]


def _by_address(address: str) -> str:
    return address


class AssociationServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens, and sees every association to its end.

    Args:
        address: where to listen; port 0 takes a free one.
        open_association: makes an association of a connection and what was read of it.
        association_ended: called exactly once for each association, after its last event.
        handshake_failed: called with the address of a peer with which no TLS could be agreed on.
        maximum_connections: TCP connections at a time; what is beyond is closed at once.
        maximum_half_open_per_address: connections at a time of one address that have not requested
            an association yet; what is beyond is closed at once.
        shares_with: gives for an address the name under which its half-open connections are
            counted; addresses of one name share what one address may have.
        request_timeout_seconds: time for TLS handshake and A-ASSOCIATE-RQ together.
        network_timeout_seconds: longest wait for a peer that takes no data.
        maximum_association_seconds: after this time an association is aborted.
        tls_context: gives the TLS context for a new connection; None to speak plain DICOM.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512  # a burst of connects must not wait for a repeated SYN

    def __init__(
        self,
        address: tuple[str, int],
        *,
        open_association: OpenAssociation,
        association_ended: AssociationEnded,
        handshake_failed: HandshakeFailed,
        maximum_connections: int,
        maximum_half_open_per_address: int,
        shares_with: Callable[[str], str] = _by_address,
        request_timeout_seconds: float,
        network_timeout_seconds: float,
        maximum_association_seconds: float,
        tls_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        self.address_family = family
        self._open_association = open_association
        self._association_ended = association_ended
        self._handshake_failed = handshake_failed
        self._free_connections = threading.BoundedSemaphore(maximum_connections)
        self._half_open = _HalfOpen(maximum_half_open_per_address)
        self._shares_with = shares_with
        self._request_timeout_seconds = request_timeout_seconds
        self._network_timeout_seconds = network_timeout_seconds
        self._maximum_association_seconds = maximum_association_seconds
        self._tls_context = tls_context
        self._open: set[Association] = set()
        self._nothing_open = threading.Condition()
        # The request handler class is never used: process_request_thread is ours.
        super().__init__(address, socketserver.BaseRequestHandler)

    @property
    def open_associations(self) -> int:
        """How many associations are requested or established now."""
        with self._nothing_open:
            return len(self._open)

    def end_associations(self, grace_seconds: float) -> None:
        """Wait for associations to be released, then abort the rest and wait for their end."""
        with self._nothing_open:
            self._nothing_open.wait_for(lambda: not self._open, timeout=grace_seconds)
            remaining = list(self._open)
        for association in remaining:
            abort_association(association)
        with self._nothing_open:
            self._nothing_open.wait_for(lambda: not self._open, timeout=2 * _LAST_WORDS_SECONDS)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; answers are small, so they must not wait for more (Nagle)."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection, of this address and in all."""
        name = self._shares_with(client_address[0])
        if not self._half_open.enter(name):
            return False
        if self._free_connections.acquire(blocking=False):
            return True
        self._half_open.leave(name)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._half_open.leave(self._shares_with(client_address[0]))
            self._free_connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end; runs in the connection's own thread."""
        connection: socket.socket = request
        try:
            try:
                deadline = time.monotonic() + self._request_timeout_seconds
                connection = self._secured(connection)
                first_pdu = _read_associate_request(connection, deadline)
            finally:
                self._half_open.leave(self._shares_with(client_address[0]))
            if first_pdu:
                connection.settimeout(self._network_timeout_seconds)
                self._serve(self._open_association(connection, first_pdu))
        except OSError as cause:  # ssl's errors are among them
            _LOG.debug("connection from %s ended: %s", client_address[0], type(cause).__name__)
            self._tell_of_handshake(client_address[0], cause)
        except Exception:  # noqa: BLE001 - one bad connection must not show in any other
            _LOG.exception("connection from %s failed", client_address[0])
        finally:
            self.shutdown_request(connection)
            self._free_connections.release()

    def _tell_of_handshake(self, address: str, cause: OSError) -> None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _GONE):
            self._handshake_failed(address, cause)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong before a connection had its thread."""
        _LOG.exception("connection from %s could not be served", client_address[0])

    def _secured(self, connection: socket.socket) -> socket.socket:
        """The connection after its TLS handshake, or as it is without TLS."""
        if self._tls_context is None:
            return connection
        connection.settimeout(self._request_timeout_seconds)
        return self._tls_context().wrap_socket(connection, server_side=True)

    def _serve(self, association: Association) -> None:
        with self._nothing_open:
            self._open.add(association)
        try:
            association.start()
            association.join(self._maximum_association_seconds)
            if association.is_alive():
                _LOG.warning("an association exceeded its total time and is aborted")
                abort_association(association)
                association.join()
            association.dul.join(_LAST_WORDS_SECONDS)
        finally:
            forget_messages(association)
            try:
                self._association_ended(association)
            finally:
                with self._nothing_open:
                    self._open.discard(association)
                    self._nothing_open.notify_all()


class _HalfOpen:
    """Counts connections by who opened them until they have requested an association.

    Args:
        limit: most of one; nobody who says nothing can use up the connections of others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, name: str) -> bool:
        """Count a new connection; False if there are too many of this name."""
        with self._lock:
            if self._count[name] >= self._limit:
                return False
            self._count[name] += 1
            return True

    def leave(self, name: str) -> None:
        """Count a connection no more."""
        with self._lock:
            self._count[name] -= 1
            if self._count[name] <= 0:
                del self._count[name]


def _read_associate_request(connection: socket.socket, deadline: float) -> bytes:
    """The whole first PDU, or nothing if the peer went away or sent something else."""
    header = receive_exactly(connection, _PDU_HEADER_BYTES, deadline)
    if len(header) < _PDU_HEADER_BYTES:
        return b""
    length = int.from_bytes(header[2:], "big")
    if header[0] != _ASSOCIATE_REQUEST or length > _LONGEST_ASSOCIATE_REQUEST:
        connection.sendall(_ABORT_UNEXPECTED_PDU)
        return b""
    request = receive_exactly(connection, _PDU_HEADER_BYTES + length, deadline, header)
    return bytes(request) if len(request) == _PDU_HEADER_BYTES + length else b""
