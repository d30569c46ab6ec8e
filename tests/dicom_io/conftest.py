"""A listener on a free port, with a real store and an intake that records what it is told."""

import pytest

from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.storage import InstanceStore
from dicom_io.tls import TlsFiles
from tests.dicom_io.peers import RecordingIntake


@pytest.fixture
def store(tmp_path):
    return InstanceStore(tmp_path / "store")


@pytest.fixture
def intake():
    return RecordingIntake()


@pytest.fixture
def listen(store, intake):
    """Start listeners with a test's own configuration; all are stopped at its end."""
    running = []

    def start(tls: TlsFiles | None = None, **configuration) -> Listener:
        listener = Listener(
            ListenerConfiguration(ae_title="MULTIMIX", tls=tls, **configuration), store, intake
        )
        listener.start()
        running.append(listener)
        return listener

    yield start
    for listener in running:
        listener.stop(grace_seconds=0)
