"""What the listener and the sender make of the settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_io.access_control import AllowedPeer
from dicom_io.remote import RemoteAE
from dicom_io.tls import TlsFiles
from worker.connections import listener_configuration, remote_at, return_address
from worker.settings import Settings

FILES = {"tls_certificate": "/c.pem", "tls_private_key": "/k.pem", "tls_trusted": "/ca.pem"}
TLS = TlsFiles(Path("/c.pem"), Path("/k.pem"), Path("/ca.pem"))


def test_the_listener_gets_every_limit_of_the_settings() -> None:
    settings = Settings(
        allowed_peers="CT1@10.0.0.0/24 max=3, PACS@10.0.0.9 receive certificate=pacs.example, *@*",
        maximum_associations=9,
        maximum_associations_per_peer=5,
        maximum_half_open_per_address=7,
        maximum_pdu_length=16384,
        maximum_object_mib=3,
        maximum_received_mib=4,
        association_timeout_seconds=1,
        idle_timeout_seconds=2,
        longest_association_seconds=3,
        **FILES,
    )
    configuration = listener_configuration(settings)
    assert configuration.allowed_calling == (
        AllowedPeer("CT1", ("10.0.0.0/24",), 3),
        AllowedPeer("PACS", ("10.0.0.9/32",), may_send=False, certified_name="pacs.example"),
        AllowedPeer(None),
    )
    assert configuration.require_called_ae_title
    assert configuration.maximum_associations == 9
    assert configuration.maximum_associations_per_peer == 5
    assert configuration.maximum_half_open_per_address == 7
    assert configuration.maximum_pdu_size == 16384
    assert configuration.maximum_object_bytes == 3 << 20
    assert configuration.maximum_received_bytes == 4 << 20
    assert configuration.association_timeout_seconds == 1
    assert configuration.idle_timeout_seconds == 2
    assert configuration.maximum_association_seconds == 3
    assert configuration.tls == TLS
    assert listener_configuration(Settings()).tls is None


def test_a_target_is_called_with_its_own_files_or_with_the_nodes() -> None:
    own = {"certificate": "/own.pem", "check_name": False}
    settings = Settings(
        targets=["A@a:1 tls", "B@b:2", {"ae_title": "C", "host": "c", "port": 3, "tls": own}],
        connection_timeout_seconds=4,
        response_timeout_seconds=5,
        tls_minimum_version="1.2",
        **FILES,
    )
    common = {"connection_timeout_seconds": 4, "response_timeout_seconds": 5}
    assert remote_at(settings, "A", "a", 1) == RemoteAE("A", "a", 1, tls=TLS, **common)
    assert remote_at(settings, "B", "b", 2) == RemoteAE("B", "b", 2, **common)
    expected = replace(TLS, certificate=Path("/own.pem"), check_peer_name=False)
    assert remote_at(settings, "C", "c", 3).tls == expected
    assert remote_at(settings, "A", "elsewhere", 1).tls is None


@pytest.mark.parametrize(
    ("calling", "host", "expected"),
    [
        ("PACS", "10.9.9.9", ("PACS", "pacs", 104)),  # where the settings say that it is
        ("CT1", "10.0.0.7", ("CT1", "10.0.0.7", 11113)),
        ("CT1", "10.1.0.7", None),
        ("CT2", "10.0.0.8", None),
        ("CT3", "10.0.0.8", None),
    ],
)
def test_reports_go_to_the_target_or_to_the_port_that_the_peer_names(
    calling: str, host: str, expected: tuple[str, str, int] | None
) -> None:
    settings = Settings(
        targets="PACS@pacs:104",
        allowed_peers="CT1@10.0.0.0/24 port=11113, CT2@10.0.0.0/24, PACS@* send+receive port=1",
    )
    remote = return_address(settings, calling, host)
    found = None if remote is None else (remote.ae_title, remote.host, remote.port)
    assert found == expected
