"""Tens of thousands of malformed associations and datasets: no crash, no leak, still there.

``FUZZ_CASES`` sets how many in all and ``FUZZ_SEED`` which; ``make fuzz`` runs more of them.
"""

import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_io.part10 import encode_dataset
from dicom_io.storage_commitment import (
    PUSH_MODEL,
    CommitmentRequest,
    InstanceReference,
    dataset_of_request,
)
from tests.dicom_io.peers import DX, action_status, encoded, radiograph, store_bytes
from tests.fuzz.associations import garbled, garbled_dataset, kinds_of_answers, recorded_pdus, say
from tests.fuzz.fuzzed_listener import MOST_GROWTH_MIB, FuzzedListener, fuzzed_listener, wait_until

CASES = int(os.environ.get("FUZZ_CASES", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
# A dataset comes in an association that is there already, and costs a fifth of one that is not.
ASSOCIATIONS = CASES // 5
QUESTIONS = CASES // 10
DATASETS = CASES - ASSOCIATIONS - QUESTIONS
SENDERS = 4
# On a busy machine a sender that is not done may say nothing for some seconds.
PATIENT_SECONDS = 60
WARM_UP = 200
THREADS_AT_REST = 5
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.hex"))


def in_turn(listener: FuzzedListener, send: Callable[[int], None], cases: int) -> None:
    """Several senders at once, and a C-ECHO now and then."""

    def work(first: int) -> None:
        for number in range(first, cases, SENDERS):
            send(number)

    senders = [threading.Thread(target=work, args=(first,)) for first in range(SENDERS)]
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        listener.echo()
        for sender in senders:
            sender.join(1)


def campaign(
    listener: FuzzedListener,
    send: Callable[[int], None],
    cases: int,
    hang_up: Callable[[], None] = lambda: None,
) -> None:
    """Send all cases; neither threads nor memory may grow with them."""
    in_turn(listener, lambda number: send(-1 - number), WARM_UP)
    hang_up()
    threads, resident = threads_at_rest(listener), listener.resident_mib
    in_turn(listener, send, cases)
    hang_up()
    listener.wait_for_threads(threads)
    assert listener.resident_mib - resident < MOST_GROWTH_MIB


def threads_at_rest(listener: FuzzedListener) -> int:
    """Threads of the listener once nobody talks to it."""
    wait_until(
        lambda: listener.status("Threads") <= THREADS_AT_REST, "the listener to come to rest"
    )
    return listener.status("Threads")


@pytest.mark.timeout(900)
def test_malformed_associations_leave_nothing_behind(tmp_path: Path) -> None:
    answers: Counter[int] = Counter()
    with fuzzed_listener(tmp_path) as listener:
        pdus = recorded_pdus(listener.port)

        def send(number: int) -> None:
            heard = say(listener.port, garbled(pdus, random.Random(f"{SEED}/{number}")))
            answers[heard[0] if heard else 0] += 1

        campaign(listener, send, ASSOCIATIONS)
    accepted, ended, _, still_open = listener.counts
    assert (accepted, still_open) == (ended, 0)
    assert "Traceback" not in listener.errors, listener.errors[-3000:]
    # The campaign reached what it is for: requests that were taken and such that were not.
    assert answers[0x02] > ASSOCIATIONS // 4, answers
    assert len(answers) >= 3, answers


@pytest.mark.timeout(900)
def test_malformed_datasets_are_stored_whole_or_refused(tmp_path: Path) -> None:
    film = encoded(radiograph(side=16))
    statuses: Counter[int | None] = Counter()
    with fuzzed_listener(tmp_path, PATIENT_SECONDS) as listener:

        def send(number: int) -> None:
            dataset = garbled_dataset(film, random.Random(f"{SEED}/{number}"))
            statuses[store_bytes(own.association(), dataset)] += 1

        own = Associations(listener.port, DX)
        campaign(listener, send, DATASETS, own.hang_up)
    accepted, ended, stored, still_open = listener.counts
    assert (accepted, still_open) == (ended, 0)
    assert "Traceback" not in listener.errors, listener.errors[-3000:]
    assert sum(statuses.values()) == DATASETS + WARM_UP
    assert None not in statuses, "every dataset in a sound association is answered"
    assert {status >> 12 for status in statuses if status} <= {0xA, 0xC}, statuses
    assert statuses[0] > DATASETS // 20
    assert sum(count for status, count in statuses.items() if status) > DATASETS // 200
    assert stored == statuses[0]
    # What was refused left no file, and what was taken lies there under its hash.
    assert not any((listener.store / "partial").iterdir())


@pytest.mark.timeout(900)
def test_malformed_questions_are_taken_or_refused(tmp_path: Path) -> None:
    references = tuple(InstanceReference(str(DX), f"2.25.{number}") for number in range(3))
    question = dataset_of_request(CommitmentRequest("2.25.7", references))
    information = encode_dataset(question, ExplicitVRLittleEndian)
    statuses: Counter[int | None] = Counter()
    with fuzzed_listener(tmp_path, PATIENT_SECONDS) as listener:

        def send(number: int) -> None:
            garbled_information = garbled_dataset(information, random.Random(f"{SEED}/{number}"))
            statuses[action_status(own.association(), garbled_information)] += 1

        own = Associations(listener.port, PUSH_MODEL)
        campaign(listener, send, QUESTIONS, own.hang_up)
    accepted, ended, _, still_open = listener.counts
    assert (accepted, still_open) == (ended, 0)
    assert "Traceback" not in listener.errors, listener.errors[-3000:]
    assert set(statuses) == {0x0000, 0x0115}, statuses
    assert min(statuses.values()) > QUESTIONS // 50, statuses


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_of_associations_is_answered_and_leaves_nothing(
    path: Path, tmp_path: Path
) -> None:
    with fuzzed_listener(tmp_path) as listener:
        threads = threads_at_rest(listener)
        heard = say(listener.port, [bytes.fromhex(line) for line in path.read_text().split()])
        listener.echo()
        listener.wait_for_threads(threads)
    accepted, ended, _, still_open = listener.counts
    assert (accepted, still_open) == (ended, 0)
    assert "Traceback" not in listener.errors
    assert kinds_of_answers(heard) == path.stem.split(".")[0]


class Associations:
    """One association for each sending thread, and a new one where it has ended."""

    def __init__(self, port: int, sop_class: UID) -> None:
        self._port = port
        self._sop_class = sop_class
        self._of_thread: dict[int, Association] = {}

    def association(self) -> Association:
        """That of the calling thread."""
        association = self._of_thread.get(threading.get_ident())
        if association is None or not association.is_established:
            association = self._of_thread[threading.get_ident()] = self._connected()
        return association

    def hang_up(self) -> None:
        """Release all of them."""
        while self._of_thread:
            _, association = self._of_thread.popitem()
            association.release()

    def _connected(self) -> Association:
        entity = AE("MODALITY")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        entity.add_requested_context(self._sop_class, [ExplicitVRLittleEndian])
        association = entity.associate("127.0.0.1", self._port)
        assert association.is_established
        # Else each small object waits for the acknowledgement of its command.
        connection = association.dul.socket.socket
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return association
