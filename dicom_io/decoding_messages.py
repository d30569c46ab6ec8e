"""What this process and its decoding process say to each other over a socket.

A message is two lengths (big endian, 4 and 8 bytes), a JSON object, and raw bytes. Nothing of it is
ever run or unpickled, and who receives decides how long each part may be.
"""

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

_LENGTHS: Final = struct.Struct(">IQ")
_LARGEST_FIELDS_BYTES: Final = 1 << 20

Octets = bytes | bytearray | memoryview


def send_message(connection: socket.socket, fields: Mapping[str, Any], *contents: Octets) -> None:
    """Send a message.

    Args:
        connection: a connected stream socket.
        fields: what JSON can say.
        contents: raw bytes that follow, one after the other.

    Raises:
        OSError: the other side is gone, or the socket's time is over.
    """
    encoded = json.dumps(fields).encode()
    views = [memoryview(content).cast("B") for content in contents]
    length = sum(view.nbytes for view in views)
    connection.sendall(_LENGTHS.pack(len(encoded), length) + encoded)
    for view in views:
        connection.sendall(view)


def receive_fields(
    connection: socket.socket, deadline: float | None = None
) -> tuple[dict[str, Any], int]:
    """Receive the beginning of a message.

    Args:
        connection: a connected stream socket.
        deadline: by ``time.monotonic``; None waits for ever.

    Returns:
        The fields, and the number of raw bytes that wait to be received.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: the deadline has passed.
        ValueError, TypeError: what came is no message.
    """
    fields_length, content_length = _LENGTHS.unpack(
        receive_content(connection, _LENGTHS.size, deadline)
    )
    if fields_length > _LARGEST_FIELDS_BYTES:
        raise ValueError("the fields of a message are too long")
    try:
        fields = json.loads(receive_content(connection, fields_length, deadline))
    except ValueError as cause:
        raise ValueError("the fields of a message are no JSON") from cause
    if not isinstance(fields, dict):
        raise TypeError("the fields of a message are no JSON object")
    return fields, content_length


def receive_content(
    connection: socket.socket, length: int, deadline: float | None = None
) -> bytearray:
    """Receive so many raw bytes; raises as ``receive_fields``."""
    content = bytearray(length)
    receive_into(connection, content, deadline)
    return content


def receive_into(connection: socket.socket, room: Octets, deadline: float | None = None) -> None:
    """Fill a buffer with raw bytes; raises as ``receive_fields``."""
    view = memoryview(room).cast("B")
    filled = 0
    while filled < view.nbytes:
        connection.settimeout(_seconds_until(deadline))
        received = connection.recv_into(view[filled:])
        if not received:
            raise EOFError("the connection ended within a message")
        filled += received


def _seconds_until(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
