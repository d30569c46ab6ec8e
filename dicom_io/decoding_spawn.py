"""A decoding process as its parent holds it: started, spoken to within a time, ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from dicom_io.decoding_messages import receive_fields, send_message
from dicom_io.errors import DecoderCrashed, DecodingError, DecodingTimedOut

Received = TypeVar("Received")
Fields = Mapping[str, Any]
# Takes the raw bytes that follow the fields: so many, from the socket, before the deadline.
Receive = Callable[[Fields, int, socket.socket, float], Received]

_START_SECONDS: Final = 60.0
_LAST_SECONDS: Final = 1.0
_PACKAGES: Final = Path(__file__).resolve().parents[1]
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


class SpawnedChild:
    """One running decoding process.

    Args:
        module: its program.
        memory_bytes: the most address space that it may have.

    Raises:
        DecodingError: it does not start.
    """

    def __init__(self, module: str, memory_bytes: int) -> None:
        self._connection, theirs = socket.socketpair()
        # Not a fork: threads, database connections and the model stay here.
        with theirs:
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(memory_bytes)]
            self.process = subprocess.Popen(
                command,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # codecs and pydicom may quote the object there
            )
        try:
            self._receive(_START_SECONDS, lambda fields, *_: fields)
        except DecodingError as problem:
            self.end()
            raise DecodingError(
                f"the decoding process does not start: {problem}; "
                f"`python -m {module} 0 {memory_bytes}` tells more"
            ) from problem

    def ask(self, request: Fields, seconds: float, receive: Receive[Received]) -> Received:
        """Have one step done.

        Args:
            request: what to do.
            seconds: wall-clock time for it.
            receive: takes the answer.

        Raises:
            DecoderCrashed: the process has ended, or its answer makes no sense.
            DecodingTimedOut: the time is over.
        """
        try:
            send_message(self._connection, {**request, "seconds": seconds})
        except OSError as cause:
            raise self._way_it_ended(seconds) from cause
        return self._receive(seconds, receive)

    def end(self) -> int:
        """End the process, if it has not ended, and give its exit status."""
        self._connection.close()
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()

    def _receive(self, seconds: float, receive: Receive[Received]) -> Received:
        deadline = time.monotonic() + seconds
        try:
            fields, length = receive_fields(self._connection, deadline)
            return receive(fields, length, self._connection, deadline)
        except TimeoutError as cause:
            raise _timed_out(seconds) from cause
        except (EOFError, OSError) as cause:
            raise self._way_it_ended(seconds) from cause
        except (ValueError, KeyError, TypeError) as cause:
            raise DecoderCrashed("the decoder's answer makes no sense") from cause

    def _way_it_ended(self, seconds: float) -> DecodingError:
        """The error for a process that hung up; it is about to end, if it has not ended."""
        try:
            status = self.process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            return DecoderCrashed("the decoder hung up")
        if status == -signal.SIGXCPU:
            return _timed_out(seconds)
        if status == -signal.SIGKILL:
            return DecoderCrashed("the decoder was killed; the machine may be short of memory")
        if status < 0:
            return DecoderCrashed(f"the decoder crashed ({signal.Signals(-status).name})")
        return DecoderCrashed(f"the decoder ended with status {status}")


def _timed_out(seconds: float) -> DecodingTimedOut:
    return DecodingTimedOut(f"the decoder took more than {seconds:g} s")


def _environment() -> dict[str, str]:
    """What the child needs to start, and none of the secrets that the environment may hold."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "LANG") if name in os.environ}
    return {**kept, **_ONE_THREAD, "PYTHONPATH": str(_PACKAGES)}
