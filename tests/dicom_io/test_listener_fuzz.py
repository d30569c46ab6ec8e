"""Broken associations by the hundred: no crash, no leak, and the port keeps answering.

``FUZZ_CASES`` sets how many; the seed is fixed, so a failure comes again.
"""

import logging
import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.remote import RemoteAE
from dicom_io.sender import echo
from dicom_io.storage import InstanceStore
from tests.dicom_io.peers import DX, RecordingIntake, encoded, radiograph, store_bytes

CASES = int(os.environ.get("FUZZ_CASES", "400"))
SENDERS = 8
LENGTHS = [b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"]


def recorded_pdus(listener: Listener) -> list[bytes]:
    """What a modality says in one good association with one object, PDU by PDU."""
    said = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as tap:

        def relay():
            modality, _ = tap.accept()
            node = socket.create_connection(("127.0.0.1", listener.port))
            answering = threading.Thread(target=pump, args=(node, modality, bytearray()))
            answering.start()
            pump(modality, node, said)
            answering.join(20)
            modality.close()
            node.close()

        relaying = threading.Thread(target=relay)
        relaying.start()
        entity = AE("MODALITY")
        entity.add_requested_context(DX, [ExplicitVRLittleEndian])
        association = entity.associate("127.0.0.1", tap.getsockname()[1])
        assert store_bytes(association, encoded(radiograph(side=16))) == 0
        association.release()
        relaying.join(20)
    pdus = []
    while said:
        length = 6 + int.from_bytes(said[2:6], "big")
        pdus.append(bytes(said[:length]))
        del said[:length]
    assert [pdu[0] for pdu in pdus] == [1, 4, 4, 5]
    return pdus


def pump(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
    while content := source.recv(1 << 16):
        copy += content
        target.sendall(content)
    target.shutdown(socket.SHUT_WR)


def broken(pdus: list[bytes], chance: random.Random) -> list[bytes]:
    """The same association with something wrong in it."""
    damaged = [bytearray(pdu) for pdu in pdus]
    # Most damage goes behind the association request, where more of the code lies.
    victims = damaged if chance.random() < 0.3 else damaged[1:]
    for _ in range(chance.randint(1, 4)):
        victim = chance.choice(victims)
        at = chance.randrange(len(victim)) if victim else 0
        match chance.randrange(7):
            case 0 | 1 | 2:
                for _ in range(chance.randint(1, 8)):
                    if victim:
                        victim[chance.randrange(len(victim))] = chance.randrange(256)
            case 3:
                del victim[at:]
            case 4:
                victim[2:6] = chance.choice(LENGTHS)
            case 5:
                victim[at:at] = chance.randbytes(chance.randint(1, 20))
                victim[2:6] = max(0, len(victim) - 6).to_bytes(4, "big")
            case 6:
                damaged.insert(chance.randrange(len(damaged)), bytearray(chance.choice(pdus)))
    return [bytes(pdu) for pdu in damaged]


def say(port: int, pdus: list[bytes]) -> None:
    """Say it all, wait a moment for answers as a peer would, and hang up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.settimeout(0.03)
            for pdu in pdus:
                connection.sendall(pdu)
                try:
                    connection.recv(4096)
                except TimeoutError:
                    continue
    except OSError:
        return  # the listener hung up first, as it may


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_associations_leave_neither_threads_nor_memory_nor_tracebacks(
    tmp_path, monkeypatch, caplog
):
    # pytest keeps every record, and with each traceback what its frames held.
    caplog.set_level(logging.CRITICAL)
    caplog.set_level(logging.CRITICAL + 1, "pynetdicom")
    unhandled = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: unhandled.append(arguments))
    configuration = ListenerConfiguration(
        "MULTIMIX",
        association_timeout_seconds=1,
        idle_timeout_seconds=1,
        maximum_object_bytes=1 << 20,
    )
    intake = RecordingIntake()
    with Listener(configuration, InstanceStore(tmp_path), intake) as listener:
        pdus = recorded_pdus(listener)
        intake.wait_for("ended")
        threads_before = threading.active_count()
        megabytes_before = resident_megabytes()

        def send_cases(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(CASES // SENDERS):
                say(listener.port, broken(pdus, chance))

        senders = [threading.Thread(target=send_cases, args=(seed,)) for seed in range(SENDERS)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

        remote = RemoteAE("MULTIMIX", "127.0.0.1", listener.port)
        echo(remote)
        deadline = time.monotonic() + 30
        while threading.active_count() > threads_before and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        assert threading.active_count() <= threads_before
        assert listener.open_associations == ()
        assert resident_megabytes() - megabytes_before < 50
    assert [str(arguments.exc_value) for arguments in unhandled] == []
    assert len(intake.of_kind("accepted")) == len(intake.of_kind("ended"))
