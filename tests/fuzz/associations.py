"""What a modality says, and how a fuzzer garbles it; everything follows from a seed."""

import contextlib
import random
import socket
import threading
from typing import Final

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from tests.dicom_io.peers import DX, encoded, radiograph, store_bytes
from tests.fuzz.request_items import reshaped

LENGTHS: Final = (b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")
_PDU_NAMES: Final = {2: "accept", 3: "reject", 4: "data", 6: "release", 7: "abort"}  # PS3.8 9.3
_PATIENCE_SECONDS: Final = 0.1
_RESHAPED_SHARE: Final = 0.3
_RESHAPED_ONLY_SHARE: Final = 0.7
SHORT_LENGTHS: Final = (b"\0\0", b"\1\0", b"\xff\xff", b"\xff\x7f")


def recorded_pdus(port: int) -> list[bytes]:
    """What a modality says in one good association with one object, PDU by PDU."""
    said = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as tap:

        def relay() -> None:
            modality, _ = tap.accept()
            node = socket.create_connection(("127.0.0.1", port))
            answering = threading.Thread(target=_pump, args=(node, modality, bytearray()))
            answering.start()
            _pump(modality, node, said)
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


def _pump(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
    while content := source.recv(1 << 16):
        copy += content
        target.sendall(content)
    target.shutdown(socket.SHUT_WR)


def garbled(pdus: list[bytes], chance: random.Random) -> list[bytes]:
    """The same association with something wrong in it."""
    damaged = [bytearray(pdu) for pdu in pdus]
    if chance.random() < _RESHAPED_SHARE:
        damaged[0] = bytearray(reshaped(pdus[0], chance))
        if chance.random() < _RESHAPED_ONLY_SHARE:
            return [bytes(pdu) for pdu in damaged]
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


def garbled_dataset(dataset: bytes, chance: random.Random) -> bytes:
    """A dataset in which elements lie about tag, VR, length or value."""
    damaged = bytearray(dataset)
    for _ in range(chance.randint(1, 4)):
        # Identifiers stand first, pixels last; damage in front reaches more code.
        end = min(len(damaged), chance.choice((120, 120, 400, len(damaged))))
        at = chance.randrange(end) if end else 0
        match chance.randrange(6):
            case 0 | 1:
                for _ in range(chance.randint(1, 6)):
                    if end:
                        damaged[chance.randrange(end)] = chance.randrange(256)
            case 2:
                damaged[at : at + 2] = chance.choice(SHORT_LENGTHS)
            case 3:
                damaged[at : at + 4] = chance.choice(LENGTHS)
            case 4:
                del damaged[at:]
            case 5:
                damaged[at:at] = chance.randbytes(chance.randint(1, 30))
    return bytes(damaged) or b"\0"  # a C-STORE without a dataset is another case


def say(port: int, pdus: list[bytes]) -> bytes:
    """Ask for an association, say the rest, hang up on this side, and hear all that is answered."""
    heard = bytearray()
    request, *rest = pdus
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request)
            connection.settimeout(_PATIENCE_SECONDS)
            with contextlib.suppress(TimeoutError):  # a request that breaks off gets no answer
                heard += connection.recv(4096)
            connection.settimeout(10)
            connection.sendall(b"".join(rest))
            connection.shutdown(socket.SHUT_WR)
            while answer := connection.recv(4096):
                heard += answer
    except OSError:
        return bytes(heard)  # the listener hung up first, as it may
    return bytes(heard)


def kinds_of_answers(heard: bytes) -> str:
    """The PDUs of an answer by name, repeated ones once: ``accept-data-release``, ``nothing``."""
    names: list[str] = []
    while heard:
        name = _PDU_NAMES.get(heard[0], "unknown")
        if names[-1:] != [name]:
            names.append(name)
        heard = heard[6 + int.from_bytes(heard[2:6], "big") :]
    return "-".join(names) or "nothing"
