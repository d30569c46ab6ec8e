"""A running node and those who should not get in: what they try leaves nothing behind."""

import os
import pickle
import re
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection, Queue
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from sqlalchemy import select

from dicom_io.errors import AssociationFailed
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.remote import RemoteAE
from dicom_io.sender import echo
from tests.dicom_io.peers import DX, encoded, radiograph, status_of_answer
from tests.worker.node_processes import processes_of
from tests.worker.nodes import RunningNode, running_node, waited_for
from worker.database import Database
from worker.demo_pacs import StorageScpPacs
from worker.queueing import READING_QUEUE
from worker.tables import Event, Instance, Study

CONNECTS = 10_000
MIB = 1 << 20
WELL_FORMED = re.compile(rb"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")
STRANGER = "STRANGER"

# One process makes the node that all of them look at.
pytestmark = pytest.mark.xdist_group("node attacks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[RunningNode]:
    """One node for all tests of this file, none of which may harm it."""
    (folder / "pacs").mkdir()
    pacs = StorageScpPacs(folder / "pacs")
    peers = "MODALITY@127.0.0.1 max=4, PACS@127.0.0.1 receive"
    with running_node(folder / "node", pacs, allowed_peers=peers) as running:
        yield running
    pacs.stop()


def home_of(node: RunningNode) -> Path:
    return Path(node.environment["MULTIMIX_HOME"])


def listener_status(node: RunningNode) -> dict[str, int]:
    """Threads, and resident memory in KiB, of the listener's process."""
    [process] = processes_of(home_of(node), "listen")
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(found[name].split()[0]) for name in ("Threads", "VmRSS")}


def test_ten_thousand_bare_connects_leave_neither_thread_nor_memory(node: RunningNode) -> None:
    echo(node.address)
    before = listener_status(node)
    for _ in range(CONNECTS):
        socket.create_connection((node.address.host, node.address.port), timeout=20).close()
    echo(node.address)
    waited_for(
        lambda: listener_status(node)["Threads"] <= before["Threads"] + 1,
        "the threads of the connects to end",
    )
    assert (listener_status(node)["VmRSS"] - before["VmRSS"]) * 1024 < 20 * MIB


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        (STRANGER, "MULTIMIX", "calling ae title not recognised"),
        ("MODALITY", "SOMEONE", "called ae title not recognised"),
    ],
)
def test_strangers_are_rejected_for_good_and_a_flood_of_them_is_a_few_lines(
    node: RunningNode, calling: str, called: str, reason: str
) -> None:
    stranger = RemoteAE(called, node.address.host, node.address.port, calling)
    log = node.folder / "node.log"
    for _ in range(30):
        with pytest.raises(AssociationFailed, match=reason) as refused:
            echo(stranger)
        assert not refused.value.transient
    refusals = [
        event.detail
        for event in events(node)
        if event.kind == "association refused" and event.detail["calling"] == calling
    ]
    assert len(refusals) == 1
    assert log.read_bytes().count(b"association refused") < 10


def test_a_peer_that_may_only_receive_cannot_send(node: RunningNode) -> None:
    entity = AE("PACS")
    entity.add_requested_context(DX)
    association = entity.associate("127.0.0.1", node.address.port, ae_title="MULTIMIX")
    assert association.is_established is False
    assert not association.accepted_contexts


hostile_uids = st.one_of(
    st.sampled_from(
        [b"../" * 20 + b"etc/passwd", b"..", b"/etc/passwd", b"a\0b", b"1.2\0/../x", b"%2e%2e%2f"]
    ),
    st.text(min_size=1, max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("0123456789.", min_size=60, max_size=70).map(str.encode),
    st.integers(4_500, 6_000).map(lambda pairs: b"1." * pairs + b"1"),
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(command_uid=hostile_uids, study_uid=hostile_uids, is_honest_command=st.booleans())
def test_no_uid_from_the_network_reaches_a_path(
    node: RunningNode, command_uid: bytes, study_uid: bytes, is_honest_command: bool
) -> None:
    film = radiograph(1)
    good_uid = str(film.SOPInstanceUID).encode()
    content = with_study_uid(film, study_uid)
    with modality_association(node) as association:
        assert association.is_established
        status = store_under(association, good_uid if is_honest_command else command_uid, content)
    if not is_honest_command and not WELL_FORMED.fullmatch(command_uid.rstrip(b"\0")):
        assert status != 0x0000
    assert stray_files(node) == []
    assert all(uid is None or WELL_FORMED.fullmatch(uid.encode()) for uid in known_uids(node))


def test_the_node_goes_on_after_all_of_it(node: RunningNode) -> None:
    echo(node.address)


@contextmanager
def modality_association(node: RunningNode) -> Iterator[Association]:
    entity = AE("MODALITY")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.add_requested_context(DX, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.address.port, ae_title="MULTIMIX")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def with_study_uid(film: Dataset, study_uid: bytes) -> bytes:
    """The encoded film with any bytes as its Study Instance UID, in an element of their length."""
    content = encoded(film)
    tag = b"\x20\x00\x0d\x00UI"
    before, _, after = content.partition(tag)
    length = int.from_bytes(after[:2], "little")
    padded = study_uid + b"\0" * (len(study_uid) % 2)
    return before + tag + len(padded).to_bytes(2, "little") + padded + after[2 + length :]


def store_under(association: Association, sop_instance_uid: bytes, content: bytes) -> int | None:
    """C-STORE under any bytes as UID, which pynetdicom itself would refuse to send."""
    context_id = association.accepted_contexts[0].context_id
    elements = b"".join(
        struct.pack("<HHI", 0, number, len(value)) + value
        for number, value in (
            (0x0002, padded_uid(str(DX).encode())),
            (0x0100, b"\x01\x00"),  # C-STORE-RQ
            (0x0110, b"\x01\x00"),
            (0x0700, b"\x00\x00"),
            (0x0800, b"\x01\x00"),  # a dataset follows
            (0x1000, padded_uid(sop_instance_uid)),
        )
    )
    command = struct.pack("<HHII", 0, 0, 4, len(elements)) + elements

    def send() -> None:
        for control, fragment in ((3, command), (2, content)):  # last fragments, PS3.8 E.2
            primitive = P_DATA()
            primitive.presentation_data_value_list = [[context_id, bytes([control]) + fragment]]
            association.dul.send_pdu(primitive)

    return status_of_answer(association, send)


def padded_uid(uid: bytes) -> bytes:
    return uid + b"\0" * (len(uid) % 2)


def stray_files(node: RunningNode) -> list[Path]:
    """Files of the node's folder whose names came from elsewhere than a hash of their content."""
    store = home_of(node) / "store"
    named_by_node = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{16})?\.(dcm|bin|txt)|[0-9a-f]{32}")
    return [
        path
        for path in store.rglob("*")
        if not path.is_dir() and not named_by_node.fullmatch(path.name)
    ]


def known_uids(node: RunningNode) -> list[str | None]:
    """Every UID that reached the database from the network."""
    database = Database(f"sqlite:///{home_of(node)}/node.sqlite")
    try:
        with database.reading() as session:
            return [
                *session.scalars(select(Instance.sop_instance_uid)),
                *session.scalars(select(Study.study_uid)),
            ]
    finally:
        database.close()


class Bomb:
    """What would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_in_the_queue_is_refused_and_discarded(node: RunningNode) -> None:
    exploded = node.folder / "exploded"
    url = (home_of(node) / "broker" / "url").read_text().strip()
    with Connection(url) as connection:
        with connection.Producer() as producer:
            for content_type in ("application/x-python-serialize", "application/json"):
                producer.publish(
                    pickle.dumps([[Bomb(exploded)], {}, {}], protocol=2),
                    routing_key=READING_QUEUE,
                    content_type=content_type,
                    content_encoding="binary",
                    headers={"task": "multimix.read_study", "id": "1", "lang": "py"},
                )
        film = phantom_dataset(draw_phantom(5, 256, 256))
        node.send(film)
        study = node.wait_for(film.StudyInstanceUID, "done", "failed")
        assert study["state"] == "done", study
        queue = Queue(READING_QUEUE)(connection.default_channel)
        waited_for(lambda: queue.queue_declare().message_count == 0, "the queue to be empty")
    assert not exploded.exists()
    assert b"ContentDisallowed" in (node.folder / "node.log").read_bytes()


def test_all_that_the_node_writes_is_for_the_node_alone(node: RunningNode) -> None:
    film = phantom_dataset(draw_phantom(6, 256, 256))
    node.send(film)
    node.wait_for(film.StudyInstanceUID, "done", "failed")
    written = {path.name for path in home_of(node).rglob("*")}
    assert {"node.sqlite", "node.sqlite-wal", "url", "valkey.conf"} <= written
    assert any(name.endswith(".aof") for name in written)
    assert any(name.endswith(".dcm") for name in written)
    open_to_others = {
        str(path.relative_to(home_of(node))): oct(stat.S_IMODE(path.lstat().st_mode))
        for path in (home_of(node), *home_of(node).rglob("*"))
        if not path.is_socket() and path.lstat().st_mode & 0o077
    }
    assert open_to_others == {}


def events(node: RunningNode) -> list[Event]:
    database = Database(f"sqlite:///{home_of(node)}/node.sqlite")
    try:
        with database.reading() as session:
            return list(session.scalars(select(Event).order_by(Event.event_key)))
    finally:
        database.close()
