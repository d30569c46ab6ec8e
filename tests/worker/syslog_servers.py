"""Syslog servers of the tests: one that takes datagrams, one that takes TLS connections."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from dicom_io.tls import TlsFiles, acceptor_context
from worker.syslog import SyslogServer


@dataclass
class TakenMessages:
    """What a server has taken, whole messages only.

    Attributes:
        address: where it listens.
        messages: without their framing.
        breaks_after: the next connections are reset after so many messages; None never.
    """

    address: SyslogServer
    messages: list[bytes] = field(default_factory=list)
    breaks_after: int | None = None


@contextmanager
def udp_server() -> Iterator[tuple[TakenMessages, socket.socket]]:
    """A bound socket, to be read by the test."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        yield TakenMessages(SyslogServer("udp", "127.0.0.1", server.getsockname()[1])), server


@contextmanager
def tls_server(files: TlsFiles, port: int = 0) -> Iterator[TakenMessages]:
    """A server by RFC 5425 that asks for a certificate, on a thread of its own."""
    listening = socket.create_server(("127.0.0.1", port))
    listening.settimeout(0.1)
    taken = TakenMessages(SyslogServer("tls", "127.0.0.1", listening.getsockname()[1]))
    context, stop = acceptor_context(files), threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with suppress(TimeoutError, OSError):
                connection, _ = listening.accept()
                connection.settimeout(5)
                with context.wrap_socket(connection, server_side=True) as tls:
                    _take_messages(tls, taken)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()
        listening.close()


def _take_messages(tls: ssl.SSLSocket, taken: TakenMessages) -> None:
    """Read octet-counted messages (RFC 5425 section 4.3) until the sender ends its side."""
    pending = b""
    while True:
        if taken.breaks_after is not None and len(taken.messages) >= taken.breaks_after:
            # What was not read makes the system answer with a reset.
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        length, blank, rest = pending.partition(b" ")
        if blank and len(rest) >= int(length):
            taken.messages.append(rest[: int(length)])
            pending = rest[int(length) :]
            continue
        received = tls.recv(65536)
        if not received:
            assert pending == b""
            tls.unwrap()
            return
        pending += received
