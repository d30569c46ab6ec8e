"""Messages to a syslog server: RFC 5424 over UDP (RFC 5426) or TLS (RFC 5425)."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from dicom_io.errors import MultiMixError

SECURITY_FACILITY: Final = 10
NOTICE: Final = 5
WARNING: Final = 4
_PORTS: Final = {"udp": 514, "tls": 6514}
_TIMEOUT_SECONDS: Final = 10.0
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class SyslogServer:
    """Where messages go; written ``udp://HOST[:PORT]`` or ``tls://HOST[:PORT]``.

    Attributes:
        transport: ``udp`` or ``tls``.
        host: name or address.
        port: 514 or 6514 if none is given.
    """

    transport: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"


def syslog_server(text: str) -> SyslogServer:
    """Read a server as an operator writes it.

    Raises:
        ValueError: it is not written like that.
    """
    problem = "a syslog server is written udp://HOST:514 or tls://HOST:6514"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise ValueError(problem) from None
    extras = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in _PORTS or not parts.hostname or extras or port == 0:
        raise ValueError(problem)
    return SyslogServer(parts.scheme, parts.hostname, port or _PORTS[parts.scheme])


def syslog_message(
    content: bytes,
    *,
    at: datetime,
    host: str,
    application: str,
    process: int,
    message_id: str,
    severity: int,
) -> bytes:
    """One message by RFC 5424 section 6, of the facility for security and authorization.

    Args:
        content: UTF-8 text.
        at: when it happened.
        host: name of this machine.
        application: who says so; printable ASCII without blanks.
        process: of whoever says so.
        message_id: the kind of content.
        severity: ``NOTICE`` or ``WARNING``.
    """
    priority = SECURITY_FACILITY * 8 + severity
    time = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    names = " ".join(_name(part) for part in (host, application, str(process), message_id))
    header = f"<{priority}>1 {time} {names} - "
    return header.encode("ascii") + _BYTE_ORDER_MARK + content


def send_by_udp(server: SyslogServer, messages: Sequence[bytes]) -> None:
    """Send messages, each in a datagram; nobody says whether they arrived.

    Raises:
        MultiMixError: the server's name or network is not known, or nobody listens.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as connection:
            connection.connect(address)
            for message in messages:
                connection.send(message)
    except OSError as cause:
        raise _away(server, cause) from cause


def send_by_tls(
    server: SyslogServer, context: Callable[[], ssl.SSLContext], messages: Sequence[bytes]
) -> None:
    """Send messages over one connection, and wait until the server has read all of them.

    Syslog knows no answer. But a server that ends the connection in good order after we have
    ended our side has read everything (RFC 5425 section 4.4); one that died before breaks it.

    Raises:
        MultiMixError: the server could not be reached, is not trusted, or did not read all.
    """
    try:
        with (
            socket.create_connection((server.host, server.port), _TIMEOUT_SECONDS) as connection,
            context().wrap_socket(connection, server_hostname=server.host) as tls,
        ):
            tls.settimeout(_TIMEOUT_SECONDS)
            for message in messages:
                tls.sendall(b"%d %b" % (len(message), message))
            # Some servers close without a farewell; that, too, comes after the last byte.
            with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
                tls.unwrap()
    except OSError as cause:  # ssl's errors are among them
        raise _away(server, cause) from cause


def _away(server: SyslogServer, cause: OSError) -> MultiMixError:
    reason = cause.strerror or getattr(cause, "reason", None) or type(cause).__name__
    return MultiMixError(f"the syslog server {server} does not take messages ({reason})")


def _name(text: str) -> str:
    """A header field: printable ASCII without blanks, ``-`` for nothing."""
    shown = "".join(character if "!" <= character <= "~" else "_" for character in text)
    return shown[:48] or "-"
