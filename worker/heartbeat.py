"""Signs of life: a thread that renews a lease while its holder works."""

import logging
import threading
from collections.abc import Callable
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from dicom_io.errors import LeaseLost

_LOG = logging.getLogger(__name__)


class Heartbeat:
    """Renews a lease again and again until the end of the ``with`` block.

    Args:
        renew: renews the lease; False if it is lost.
        interval_seconds: pause between two renewals; a third of the lease leaves room for two
            that fail.
    """

    def __init__(self, renew: Callable[[], bool], interval_seconds: float) -> None:
        self._renew = renew
        self._interval_seconds = interval_seconds
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def require_held(self) -> None:
        """Stop work that is void.

        Raises:
            LeaseLost: the last renewal found the lease in other hands.
        """
        if self._lost.is_set():
            raise LeaseLost("the lease is held by another worker, or by nobody")

    def _beat(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            try:
                if not self._renew():
                    self._lost.set()
                    return
            except SQLAlchemyError as cause:
                # The database may come back before the lease ends; what is written later is
                # guarded by the lease in any case.
                _LOG.warning("a lease could not be renewed: %s", type(cause).__name__)
