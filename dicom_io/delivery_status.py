"""What an answer to a C-STORE request means for the object that was sent."""

from enum import Enum
from typing import Final


class Disposition(Enum):
    """What to do with an object after an attempt to send it."""

    DELIVERED = "delivered"
    DELIVERED_WITH_WARNING = "delivered, with a warning of the peer"
    RETRY = "not delivered, try again later"
    REFUSED = "refused by the peer for good"
    CONTEXT_REFUSED = "the peer does not take this kind of object or its transfer syntax"


_SINGLE: Final = {
    0x0000: Disposition.DELIVERED,
    # Warnings of PS3.7 annex C: the instance is stored.
    0x0001: Disposition.DELIVERED_WITH_WARNING,
    0x0107: Disposition.DELIVERED_WITH_WARNING,
    0x0116: Disposition.DELIVERED_WITH_WARNING,
    # Duplicate SOP Instance: an earlier attempt got through and only its answer was lost.
    0x0111: Disposition.DELIVERED_WITH_WARNING,
    0x0110: Disposition.RETRY,  # processing failure
    0x0210: Disposition.RETRY,  # duplicate invocation
    0x0213: Disposition.RETRY,  # resource limitation
    0xFE00: Disposition.RETRY,  # cancelled
    0x0122: Disposition.CONTEXT_REFUSED,  # SOP class not supported
}
_RANGES: Final = (
    (0xB000, 0xBFFF, Disposition.DELIVERED_WITH_WARNING),
    (0xA700, 0xA7FF, Disposition.RETRY),  # out of resources
    (0xA800, 0xA8FF, Disposition.CONTEXT_REFUSED),  # SOP class not supported, of older peers
)


def disposition_of(status: int) -> Disposition:
    """Classify the status of a C-STORE response (PS3.4 table B.2-1, PS3.7 annex C).

    Args:
        status: the value of (0000,0900).

    Returns:
        What it means; a status that no table knows is a final refusal.
    """
    if status in _SINGLE:
        return _SINGLE[status]
    for first, last, disposition in _RANGES:
        if first <= status <= last:
            return disposition
    return Disposition.REFUSED
