"""Files with films or Patient IDs in them are made for their owner alone."""

import os
from typing import Final

PRIVATE_FOLDER: Final = 0o700


def private(path: str, flags: int) -> int:
    """An ``opener`` of ``open``: a file that is made is readable by its owner alone (0600)."""
    return os.open(path, flags, 0o600)
