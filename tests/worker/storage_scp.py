"""A receiving PACS over a real socket, which answers as a test tells it to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from dicom_io.result_profile import DEFAULT_PROFILE
from dicom_io.uids import STORAGE_CLASSES, ResultKind
from worker.addresses import Target

ALL_RESULTS = tuple(STORAGE_CLASSES.values())


class StorageScp:
    """What it received, in order, and how it answers."""

    def __init__(self, kinds: tuple[str, ...], calling: tuple[str, ...]) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.associations = 0
        self.answer: Callable[[str], int] = lambda sop_instance_uid: 0x0000
        self.arrived = threading.Condition()
        self._entity = AE("PACS")
        self._entity.require_calling_aet = list(calling)
        for kind in (*kinds, Verification):
            self._entity.add_supported_context(kind)
        self._server = None

    def start(self, port: int = 0) -> int:
        self._server = self._entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)],
        )
        return self._server.socket.getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    @property
    def uids(self) -> list[str]:
        return [uid for uid, _ in self.received]

    def wait_for(self, count: int, seconds: float) -> None:
        """Wait until so many objects have arrived."""
        with self.arrived:
            done = self.arrived.wait_for(lambda: len(self.received) >= count, seconds)
        assert done, f"{len(self.received)} of {count} objects arrived within {seconds} s"

    def _accepted(self, event: evt.Event) -> None:
        self.associations += 1

    def _store(self, event: evt.Event) -> int:
        sop_instance_uid = str(event.request.AffectedSOPInstanceUID)
        status = self.answer(sop_instance_uid)
        with self.arrived:
            if status in (0x0000, 0xB000):
                self.received.append((sop_instance_uid, event.encoded_dataset(False)))
            self.arrived.notify_all()
        return status


@contextmanager
def storage_scp(
    kinds: tuple[str, ...] = ALL_RESULTS,
    calling: tuple[str, ...] = (),
    results: frozenset[ResultKind] = DEFAULT_PROFILE,
) -> Iterator[tuple[StorageScp, Target]]:
    """A running storage SCP on a free port, and how a node's settings name it."""
    scp = StorageScp(kinds, calling)
    port = scp.start()
    try:
        yield scp, Target(ae_title="PACS", host="127.0.0.1", port=port, results=results)
    finally:
        scp.stop()
