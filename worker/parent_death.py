"""A child process that ends with its parent, however the parent ends (Linux)."""

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def end_with_parent(parent: int, signal_number: int = signal.SIGTERM) -> None:
    """Ask the kernel for a signal when the parent ends; lasts over ``exec``.

    Args:
        parent: the parent's process number; if it has ended already, this process ends too.
        signal_number: what to be sent.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)
