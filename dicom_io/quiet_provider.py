"""The upper layer of an association, which notices the end of its connection soon and quietly."""

import logging
import time
from typing import Final

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE

_LOG = logging.getLogger(__name__)

_IDLE: Final = "Sta1"  # PS3.8 table 9-1: no connection
_LOOK_EVERY_SECONDS: Final = 0.05

_Primitive = A_ASSOCIATE | A_RELEASE | A_ABORT | A_P_ABORT


class _RememberingMachine(StateMachine):
    """A state machine that tells an ended connection from one that it has yet to notice.

    At its start it is idle, too, and with a long request or on a busy machine it stays so.
    """

    def __init__(self, provider: DULServiceProvider) -> None:
        super().__init__(provider)
        self._was_connected = False

    @property
    def has_ended(self) -> bool:
        """Whether there was a connection and is none any more."""
        return self._was_connected and self.current_state == _IDLE

    def transition(self, state: str) -> None:
        """Go into a state."""
        self._was_connected = self._was_connected or state != _IDLE
        super().transition(state)


class QuietProvider(DULServiceProvider):
    """The upper layer, which ends soon and without a traceback when a peer breaks the protocol.

    pynetdicom's state machine raises on events that the standard does not foresee in a state; the
    association notices that its provider is gone, and ends.
    """

    state_machine: _RememberingMachine

    def __init__(self, association: Association) -> None:
        super().__init__(association)
        self.state_machine = _RememberingMachine(self)

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> _Primitive | None:
        """The next primitive; where it is waited for, no longer than the connection lasts."""
        if not wait or timeout is None:
            return super().receive_pdu(wait, timeout)
        deadline = time.monotonic() + timeout
        looks_without_connection = 0
        while True:
            primitive = super().receive_pdu(wait=True, timeout=_LOOK_EVERY_SECONDS)
            if primitive is not None or time.monotonic() >= deadline:
                return primitive
            if self.is_alive() and not self.state_machine.has_ended:
                looks_without_connection = 0
                continue
            # What came last may have been put into the queue since; hence a second look.
            looks_without_connection += 1
            if looks_without_connection > 1:
                return None

    def run_reactor(self) -> None:
        """Serve the connection until its end."""
        try:
            super().run_reactor()
        except Exception as cause:  # noqa: BLE001 - a thread has nobody to tell
            # Anybody can get here, as often as he likes: not for a log that is kept.
            _LOG.debug("an association broke the protocol: %s", type(cause).__name__)
