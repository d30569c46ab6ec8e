"""Whatever a broken object makes a library raise, in the terms of a refusal."""

from collections.abc import Iterator
from contextlib import contextmanager

from dicom_io.errors import ImageRejected, RejectionReason


@contextmanager
def refusing(reason: RejectionReason) -> Iterator[None]:
    """Turn any error of a library into a refusal for a reason; usable as a decorator too.

    A want of memory passes through: it is this machine's state, not a fault of the object, and a
    refusal is final. Of the error only its kind is told, since its text may quote the object.

    Args:
        reason: why the object is refused if anything in the block fails.

    Raises:
        ImageRejected: something failed, or was refused inside for a reason of its own.
    """
    try:
        yield
    except (ImageRejected, MemoryError):
        raise
    except Exception as cause:  # decoders and converters raise whatever they like
        raise ImageRejected(reason, type(cause).__name__) from cause
