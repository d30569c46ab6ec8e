"""Audit messages: valid by PS3.15's schema, by real UDP and TLS sockets, none lost, no patient."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from lxml import etree

from dicom_io.access_control import Refusal
from dicom_io.errors import MultiMixError, SettingsError
from dicom_io.sender import send
from dicom_io.tls import TlsFiles, requestor_context
from tests.dicom_io.certificates import create_authority
from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.readings import chest_film
from tests.worker.storage_scp import storage_scp
from tests.worker.syslog_servers import tls_server, udp_server
from worker.atna import forward_batch
from worker.atna_events import ThisNode
from worker.audit_chain import chain_new_entries
from worker.database import Database
from worker.part_log import logged_part
from worker.purging import purge_study
from worker.record_keeping import record_keeping
from worker.settings import Settings
from worker.syslog import (
    NOTICE,
    SyslogServer,
    send_by_tls,
    send_by_udp,
    syslog_message,
    syslog_server,
)

NODE = ThisNode("MULTIMIX", "node.example.org")
SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "audit_message.rng"))
HEADER = re.compile(
    rb"<8[45]>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z node\.example\.org multimix \d+ "
    rb"DICOM\+RFC3881 - \xef\xbb\xbf(?P<content>.*)",
    re.DOTALL,
)


def content_of(message: bytes) -> etree._Element:
    """The audit message in a syslog message, both checked."""
    match = HEADER.fullmatch(message)
    assert match is not None, message
    root = etree.fromstring(match["content"])
    SCHEMA.assertValid(root)
    return root


def told(root: etree._Element) -> tuple[str, str, str, list[str]]:
    """Event, action, outcome, and the study UIDs of a message."""
    (event,) = root.findall("EventIdentification")
    return (
        event.find("EventID").get("originalText"),
        event.get("EventActionCode"),
        event.get("EventOutcomeIndicator"),
        [
            each.get("ParticipantObjectID")
            for each in root.findall("ParticipantObjectIdentification")
        ],
    )


def forward(database: Database, sent: list[bytes]) -> None:
    chain_new_entries(database)
    while forward_batch(database, sent.extend, NODE):
        pass


def test_a_study_is_told_from_its_arrival_to_its_end(
    any_database: Database, tmp_path: Path
) -> None:
    sent: list[bytes] = []
    forward(any_database, sent)  # the beginning is noted
    with storage_scp() as (_, target), logged_part(any_database, "listener"):
        bench = Bench(any_database, tmp_path, target)
        bench.intake.association_refused(association("STRANGER"), Refusal.UNKNOWN_CALLING)
        bench.intake.association_refused(association("CT1"), Refusal.TOO_MANY)
        bench.receive(chest_film("1.2.3", PatientName="Canary^Carol", PatientID="CANARY-7"))
        (peer_key,) = bench.reader().read_study(1)
        bench.sender(send).deliver_to(peer_key)
    forward(any_database, sent)
    purge_study(any_database, bench.store, "1.2.3", "miller", bench.clock)
    forward(any_database, sent)

    messages = [content_of(message) for message in sent]
    assert [told(message) for message in messages] == [
        ("Application Activity", "E", "0", []),
        ("Security Alert", "E", "4", ["127.0.0.1"]),
        ("DICOM Instances Transferred", "C", "0", ["1.2.3"]),
        ("DICOM Instances Accessed", "R", "0", ["1.2.3"]),
        ("Begin Transferring DICOM Instances", "E", "0", ["1.2.3"]),
        ("DICOM Instances Transferred", "C", "0", ["1.2.3"]),
        ("DICOM Instances Transferred", "C", "0", ["1.2.3"]),
        ("Application Activity", "E", "0", []),
        ("DICOM Study Deleted", "D", "0", ["1.2.3"]),
    ]
    assert not any(b"canary" in message.lower() for message in sent)
    arrived = messages[2]
    roles = [
        (each.get("UserID"), each.find("RoleIDCode").get("csd-code"))
        for each in arrived.findall("ActiveParticipant")
    ]
    assert roles == [("CT1", "110153"), ("MULTIMIX", "110152")]
    assert arrived.find(".//SOPClass").attrib == {
        "UID": "1.2.840.10008.5.1.4.1.1.1.1",
        "NumberOfInstances": "1",
    }
    assert messages[-1].find("ActiveParticipant").get("UserID") == "miller"


def test_names_from_strangers_stay_valid_xml(any_database: Database, tmp_path: Path) -> None:
    sent: list[bytes] = []
    forward(any_database, sent)
    bench = Bench(any_database, tmp_path)
    bench.intake.association_refused(association("<x a=\"&'>]]>"), Refusal.UNKNOWN_CALLING)
    forward(any_database, sent)
    (message,) = sent
    assert content_of(message).findall("ActiveParticipant")[1].get("UserID") == "<x a=\"&'>]]>"


@pytest.mark.parametrize("refusal", [Refusal.NO_TRUSTED_CERTIFICATE, Refusal.NO_TLS])
def test_a_peer_that_tls_keeps_out_is_an_alert_about_its_address(
    any_database: Database, tmp_path: Path, refusal: Refusal
) -> None:
    sent: list[bytes] = []
    forward(any_database, sent)
    Bench(any_database, tmp_path).intake.association_refused(association(""), refusal)
    forward(any_database, sent)
    (message,) = map(content_of, sent)
    assert told(message) == ("Security Alert", "E", "4", ["127.0.0.1"])
    peer = message.findall("ActiveParticipant")[1]
    assert (peer.get("NetworkAccessPointID"), peer.get("AlternativeUserID")) == ("127.0.0.1", None)
    assert refusal.value in message.findtext(".//EventOutcomeDescription")


def test_messages_go_by_udp(any_database: Database, tmp_path: Path) -> None:
    forward(any_database, [])
    Bench(any_database, tmp_path).receive(chest_film("1.2.3"))
    chain_new_entries(any_database)
    with udp_server() as (taken, server):
        forward_batch(any_database, partial(send_by_udp, taken.address), NODE)
        assert told(content_of(server.recv(65536)))[3] == ["1.2.3"]


@pytest.fixture
def authority_files(tmp_path: Path) -> tuple[TlsFiles, TlsFiles]:
    authority = create_authority(tmp_path / "authority")
    return authority.issue("server"), authority.issue("node")


def test_a_server_that_is_away_or_breaks_off_loses_and_delays_nothing(
    any_database: Database, tmp_path: Path, authority_files: tuple[TlsFiles, TlsFiles]
) -> None:
    server_files, own_files = authority_files
    context = partial(requestor_context, own_files)
    forward(any_database, [])
    bench = Bench(any_database, tmp_path / "store")
    for number in range(1, 6):
        bench.receive(chest_film(f"1.2.{number}"))
    chain_new_entries(any_database)
    with tls_server(server_files) as taken:
        away = taken.address
    with pytest.raises(MultiMixError, match="does not take messages"):
        forward_batch(any_database, partial(send_by_tls, away, context), NODE)

    with tls_server(server_files, away.port) as taken:
        deliver = partial(send_by_tls, taken.address, context)
        taken.breaks_after = 2
        with pytest.raises(MultiMixError, match="does not take messages"):
            forward_batch(any_database, deliver, NODE)
        taken.messages.clear()
        taken.breaks_after = None
        forward_batch(any_database, deliver, NODE)
        forward_batch(any_database, deliver, NODE)
        studies = [told(content_of(message))[3] for message in taken.messages]
    assert studies == [[f"1.2.{number}"] for number in range(1, 6)]


def test_a_server_of_an_unknown_authority_gets_nothing(
    tmp_path: Path, authority_files: tuple[TlsFiles, TlsFiles]
) -> None:
    server_files, _ = authority_files
    stranger = create_authority(tmp_path / "stranger").issue("node")
    with tls_server(server_files) as taken:
        with pytest.raises(MultiMixError, match="does not take messages"):
            send_by_tls(taken.address, partial(requestor_context, stranger), [b"<85>1"])
        assert taken.messages == []


def test_what_was_logged_before_the_server_was_named_is_not_told(
    any_database: Database, tmp_path: Path
) -> None:
    Bench(any_database, tmp_path).receive(chest_film("1.2.3"))
    sent: list[bytes] = []
    forward(any_database, sent)
    assert sent == []


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("udp://logs", SyslogServer("udp", "logs", 514)),
        ("tls://10.0.0.1", SyslogServer("tls", "10.0.0.1", 6514)),
        ("tls://[::1]:7000", SyslogServer("tls", "::1", 7000)),
    ],
)
def test_servers_are_written_as_urls(text: str, server: SyslogServer) -> None:
    assert syslog_server(text) == server
    assert syslog_server(str(server)) == server


@pytest.mark.parametrize("text", ["logs:514", "tcp://logs", "udp://", "udp://a:0", "udp://a/b"])
def test_other_ways_to_write_a_server_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is written udp://HOST:514"):
        syslog_server(text)


def test_a_header_holds_nothing_but_its_fields() -> None:
    message = syslog_message(
        b"x",
        at=datetime(2026, 11, 23, 9, 0, tzinfo=UTC) + timedelta(microseconds=5),
        host="a b\nc",
        application="",
        process=7,
        message_id="ID",
        severity=NOTICE,
    )
    assert message == b"<85>1 2026-11-23T09:00:00.000005Z a_b_c - 7 ID - \xef\xbb\xbfx"


def test_tls_without_certificates_does_not_start(database: Database, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, audit_server="tls://127.0.0.1")
    with pytest.raises(SettingsError, match="audit_server over tls needs tls_certificate"):
        record_keeping(settings, database, Bench(database, tmp_path).store)
