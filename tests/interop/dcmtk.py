"""dcmtk's storage SCP, started for a test."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.programs import require_program


@dataclass
class Storescp:
    """A running storescp and where it puts what it gets."""

    port: int
    folder: Path
    process: subprocess.Popen


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[Storescp]:
    """dcmtk's storage SCP on a free port, ready to accept; ``+B`` keeps the bytes as they come."""
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [require_program("storescp"), "+B", *options, "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_listening(port, process)
        yield Storescp(port, folder, process)
    finally:
        process.kill()
        process.wait()


def wait_until_listening(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "the program ended"
            assert time.monotonic() < deadline, "the program does not listen"
            time.sleep(0.02)
        else:
            return
