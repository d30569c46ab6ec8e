"""Settings that make no sense together are refused, and the message names them."""

from pathlib import Path

import pytest

from dicom_io.errors import SettingsError
from worker.addresses import AllowedPeer, Target, TargetTls
from worker.settings import Settings
from worker.settings_loading import load_settings, load_settings_with_origins


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def setting(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(f"MULTIMIX_{name.upper()}", value)
    return load_settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"listener_host": "0.0.0.0"}, r"allowed_peers is empty: name those who may call"),
        ({"listener_host": "::"}, "allowed_peers is empty"),
        ({"tls_certificate": "c.pem"}, "tls_private_key, tls_trusted must be set too"),
        ({"targets": "A@h:1 tls"}, "targets: A is called over TLS, but tls_certificate"),
        ({"targets": "W=https://h/web tls"}, "tls and commit are for a target with an AE title"),
        ({"retry_seconds": "60", "longest_retry_seconds": "5"}, "retry_seconds must not be above"),
        ({"quiet_seconds": "9", "longest_wait_seconds": "5"}, "quiet_seconds must not be above"),
        ({"idle_timeout_seconds": "99", "longest_association_seconds": "9"}, "idle_timeout"),
        (
            {"maximum_associations": "4", "maximum_associations_per_peer": "5"},
            "maximum_associations_per_peer must not be above",
        ),
        ({"maximum_associations": "4", "allowed_peers": "A@* max=5"}, "max= of A must not"),
        (
            {"maximum_object_mib": "300", "maximum_received_mib": "299"},
            "maximum_received_mib must not be below maximum_object_mib",
        ),
        ({"maximum_pdu_length": "100"}, "maximum_pdu_length must be 0.* or at least 4096"),
        ({"broker_port": "104", "listener_port": "104"}, "broker_port and listener_port"),
        ({"targets": "A@localhost:11112"}, "targets: A is this node itself"),
        ({"targets": "A@h:1", "allowed_peers": "A@*"}, "does not let A receive"),
        ({"targets": "A@h:1 commit", "allowed_peers": "B@*"}, "does not let A call to report it"),
        ({"allowed_peers": "A@* max=0"}, "MULTIMIX_ALLOWED_PEERS"),
        ({"allowed_peers": "A@* everything"}, "MULTIMIX_ALLOWED_PEERS .*what it may"),
        ({"tls_minimum_version": "1.1"}, "MULTIMIX_TLS_MINIMUM_VERSION"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        setting(monkeypatch, **values)


@pytest.mark.parametrize(
    "values",
    [
        {"listener_host": "0.0.0.0", "allowed_peers": "CT1@10.0.0.0/24"},
        {"listener_host": "0.0.0.0", "allowed_peers": "*@*", "targets": "A@h:1 commit"},
        {"allowed_peers": "A@* send+receive", "targets": "A@h:1 commit"},
        {"allowed_peers": "CT1@*", "targets": "PACS@h:104"},
        {"maximum_associations": "4"},
        {"targets": "A@localhost:11113"},
    ],
)
def test_what_makes_sense_is_taken(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    setting(monkeypatch, **values)


def test_peers_are_written_with_their_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    written = "CT1@10.0.0.0/24, PACS@10.0.0.9 send+receive max=4 port=104, *@* receive"
    peers = setting(monkeypatch, allowed_peers=written).allowed_peers
    assert peers == (
        AllowedPeer(ae_title="CT1", network="10.0.0.0/24"),
        AllowedPeer(
            ae_title="PACS",
            network="10.0.0.9/32",
            may_receive=True,
            maximum_associations=4,
            port=104,
        ),
        AllowedPeer(ae_title="*", network="*", may_send=False, may_receive=True),
    )
    again = setting(monkeypatch, allowed_peers=", ".join(map(str, peers)))
    assert again.allowed_peers == peers


def test_a_peer_may_be_bound_to_its_certificate_where_there_is_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {f"tls_{name}": f"{name}.pem" for name in ("certificate", "private_key", "trusted")}
    written = "CT1@10.0.0.0/24 send max=4 certificate=ct1.hospital.example"
    peers = setting(monkeypatch, allowed_peers=written, **files).allowed_peers
    assert peers[0].certified_name == "ct1.hospital.example"
    assert setting(monkeypatch, allowed_peers=str(peers[0]), **files).allowed_peers == peers
    for name in files:
        monkeypatch.delenv(f"MULTIMIX_{name.upper()}")
    with pytest.raises(SettingsError, match="certificate= of CT1 needs tls_certificate"):
        setting(monkeypatch, allowed_peers=written)


def test_targets_are_written_with_tls_and_commitment(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"tls_{name}": f"{name}.pem" for name in ("certificate", "private_key", "trusted")}
    written = "A@h:1 tls, B@h:2 sr commit tls, C=MY PACS@h:3 commit"
    targets = setting(monkeypatch, targets=written, **files).targets
    assert [(t.ae_title, t.tls, t.commit) for t in targets] == [
        ("A", TargetTls(), False),
        ("B", TargetTls(), True),
        ("MY PACS", None, True),
    ]
    assert setting(monkeypatch, targets=", ".join(map(str, targets))).targets == targets


def test_a_target_may_have_tls_files_of_its_own(tmp_path: Path) -> None:
    tls = {"certificate": "/c.pem", "private_key": "/k.pem", "trusted": "/ca.pem"}
    settings = Settings(targets=[{"ae_title": "A", "host": "h", "port": 1, "tls": tls}])
    assert settings.targets == (
        Target(name="A", ae_title="A", host="h", port=1, tls=TargetTls(**tls)),
    )


@pytest.mark.parametrize("name", ["database_url", "broker_url"])
def test_a_secret_may_stand_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    urls = {
        "database_url": "postgresql+psycopg://node:geheim@db/multimix",
        "broker_url": "rediss://:geheim@broker:6380/0",
    }
    secret = tmp_path / "secret"
    secret.write_text(urls[name] + "\n")
    monkeypatch.setenv(f"MULTIMIX_{name.upper()}_FILE", str(secret))
    loaded = load_settings_with_origins()
    assert str(getattr(loaded.settings, name)).startswith(urls[name])
    assert loaded.origins[name] == f"file {secret}"


@pytest.mark.parametrize("content", ["", "geheim\ngeheim", "geheim" * 1000, None])
def test_a_file_without_a_secret_is_refused_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_text(content)
    monkeypatch.setenv("MULTIMIX_BROKER_URL_FILE", str(secret))
    with pytest.raises(SettingsError, match="MULTIMIX_BROKER_URL_FILE") as refused:
        load_settings()
    assert "geheim" not in str(refused.value)


def test_a_secret_in_two_places_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMIX_BROKER_URL", "redis://a")
    monkeypatch.setenv("MULTIMIX_BROKER_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingsError, match="are both set"):
        load_settings()


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("redis://h/0", "redis://h/0"),
        ("rediss://:p@h:6380/0", "rediss://:p@h:6380/0?ssl_cert_reqs=required"),
        (
            "rediss://h?ssl_ca_certs=/ca.pem",
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required",
        ),
    ],
)
def test_the_certificate_of_a_broker_is_always_checked(written: str, used: str) -> None:
    assert Settings(broker_url=written).broker_url == used


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_a_broker_whose_certificate_is_not_checked_is_refused(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    with pytest.raises(SettingsError, match="certificate must be checked"):
        setting(monkeypatch, broker_url=f"rediss://:geheim@h/0?{option}")
