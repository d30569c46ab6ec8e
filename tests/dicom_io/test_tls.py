"""TLS on listener and sender, with good, expired and unknown certificates."""

import shutil
import socket
import ssl
import time

import pytest

from dicom_io.access_control import AllowedPeer, Refusal
from dicom_io.errors import AssociationFailed, SettingsError
from dicom_io.listener import Listener
from dicom_io.sender import Disposition, RemoteAE, echo, send
from dicom_io.tls import ReloadingContext, TlsFiles, acceptor_context, requestor_context
from tests.dicom_io.certificates import create_authority
from tests.dicom_io.peers import radiograph
from tests.interop.dcmtk import storescp
from tests.programs import output_of

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return create_authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return create_authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def node(hospital):
    return hospital.issue("node")


@pytest.fixture(scope="module")
def modality(hospital):
    return hospital.issue("modality")


def remote(listener: Listener, tls: TlsFiles | None, host: str = "127.0.0.1") -> RemoteAE:
    return RemoteAE(
        "MULTIMIX",
        host,
        listener.port,
        tls=tls,
        connection_timeout_seconds=5,
        association_timeout_seconds=2,
    )


def test_peers_of_one_authority_talk(listen, node, modality):
    echo(remote(listen(node), modality))


def test_a_peer_without_tls_is_not_heard(listen, node):
    with pytest.raises(AssociationFailed):
        echo(remote(listen(node, association_timeout_seconds=1), None))


def test_an_expired_certificate_is_refused(listen, hospital, node):
    with pytest.raises(AssociationFailed):
        echo(remote(listen(node), hospital.issue("expired", days=-1)))


def test_a_certificate_of_an_unknown_authority_is_refused(listen, hospital, stranger, node):
    foreign = stranger.issue("foreign")
    disguised = TlsFiles(foreign.certificate, foreign.private_key, hospital.certificate)
    with pytest.raises(AssociationFailed):
        echo(remote(listen(node), disguised))


def test_our_sender_refuses_a_peer_of_an_unknown_authority(listen, stranger, modality):
    impostor = stranger.issue("impostor")
    server = TlsFiles(impostor.certificate, impostor.private_key, modality.trusted)
    with pytest.raises(AssociationFailed):
        echo(remote(listen(server), modality))


def test_our_sender_refuses_a_peer_whose_certificate_names_another_host(listen, hospital, modality):
    elsewhere = listen(hospital.issue("elsewhere", host="10.1.2.3"))
    with pytest.raises(AssociationFailed):
        echo(remote(elsewhere, modality))
    unchecked = TlsFiles(
        modality.certificate, modality.private_key, modality.trusted, check_peer_name=False
    )
    echo(remote(elsewhere, unchecked))


@pytest.mark.parametrize(
    ("certified_name", "other", "is_let_in"),
    [
        ("Bound", (), True),  # the common name; case makes no difference
        ("ct1.hospital.example", (), True),  # the alternative name
        ("ct2.hospital.example", (), False),
        ("ct2.hospital.example", (AllowedPeer("MULTIMIX", may_send=False),), True),
        ("*.hospital.example", (), False),
        ("127.0.0.1", (), False),  # addresses are what networks are for
    ],
)
def test_a_peer_that_is_bound_to_a_certificate_calls_with_no_other(
    listen, intake, hospital, node, certified_name, other, is_let_in
):
    bound = AllowedPeer("MULTIMIX", ("127.0.0.1",), certified_name=certified_name)
    listener = listen(node, allowed_calling=(bound, *other))
    peer = hospital.issue("bound", host="127.0.0.1,DNS:ct1.hospital.example")
    if is_let_in:
        echo(remote(listener, peer))
    else:
        with pytest.raises(AssociationFailed):
            echo(remote(listener, peer))
        assert intake.wait_for("refused") == [Refusal.WRONG_CERTIFICATE]


def test_without_tls_nobody_is_let_in_who_is_bound_to_a_certificate(listen, intake):
    listener = listen(allowed_calling=(AllowedPeer("MULTIMIX", certified_name="modality"),))
    with pytest.raises(AssociationFailed):
        echo(remote(listener, None))
    assert intake.wait_for("refused") == [Refusal.WRONG_CERTIFICATE]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_with_forward_secrecy(listen, node, modality, version):
    listener = listen(node)
    context = requestor_context(modality)
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", listener.port)) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        name, _, bits = secured.cipher()
    assert bits >= 128
    assert name.startswith(("ECDHE", "TLS_"))


def test_older_tls_is_not_spoken(node):
    assert acceptor_context(node).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_handshake_that_is_never_begun_holds_up_nobody(listen, node, modality):
    listener = listen(node)
    silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(10)]
    began = time.monotonic()
    echo(remote(listener, modality))
    assert time.monotonic() - began < 2
    for connection in silent:
        connection.close()


def test_a_renewed_certificate_holds_from_the_next_connection(
    listen, tmp_path, hospital, stranger, node, modality
):
    paths = [tmp_path / name for name in ("certificate.pem", "key.pem", "trusted.pem")]

    def install(files: TlsFiles) -> None:
        sources = (files.certificate, files.private_key, files.trusted)
        for source, target in zip(sources, paths, strict=True):
            fresh = target.with_suffix(".new")
            shutil.copyfile(source, fresh)
            fresh.rename(target)

    install(node)
    listener = listen(TlsFiles(*paths))
    echo(remote(listener, modality))
    install(stranger.issue("node"))
    with pytest.raises(AssociationFailed):
        echo(remote(listener, modality))
    echo(remote(listener, stranger.issue("modality")))


def test_while_a_renewal_is_half_done_the_old_certificate_holds(tmp_path, node, hospital):
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    shutil.copyfile(node.certificate, certificate)
    shutil.copyfile(node.private_key, key)
    current = ReloadingContext(TlsFiles(certificate, key, node.trusted), acceptor_context)
    first = current()
    assert current() is first
    renewed = hospital.issue("renewed")
    shutil.copyfile(renewed.certificate, certificate)
    assert current() is first
    shutil.copyfile(renewed.private_key, key)
    assert current() is not first


@pytest.mark.parametrize("broken", ["certificate", "private_key", "trusted"])
def test_a_file_that_cannot_be_used_is_a_setting_error_that_names_it(tmp_path, node, broken):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no PEM")
    files = TlsFiles(**{**vars(node), broken: wrong})
    with pytest.raises(SettingsError, match=r"wrong\.pem"):
        acceptor_context(files)


def dcmtk_identity(files: TlsFiles) -> list[str]:
    return ["+tls", str(files.private_key), str(files.certificate), "+cf", str(files.trusted)]


def test_dcmtk_with_a_certificate_of_the_authority_is_answered(listen, node, modality):
    listener = listen(node)
    printed = output_of("echoscu", "-v", *dcmtk_identity(modality), "127.0.0.1", str(listener.port))
    assert "Received Echo Response (Success)" in printed, printed


def test_dcmtk_without_a_certificate_is_refused(listen, node):
    port = str(listen(node).port)
    printed = output_of("echoscu", "-v", "+tla", "+cf", node.trusted, "127.0.0.1", port)
    assert "Received Echo Response" not in printed


def test_dcmtk_with_a_certificate_of_another_authority_is_refused(listen, node, stranger):
    foreign = stranger.issue("foreign-dcmtk")
    disguised = TlsFiles(foreign.certificate, foreign.private_key, node.trusted)
    port = str(listen(node).port)
    printed = output_of("echoscu", "-v", *dcmtk_identity(disguised), "127.0.0.1", port)
    assert "Received Echo Response" not in printed


def test_our_sender_speaks_tls_with_dcmtk(tmp_path, hospital, modality):
    pacs_files = hospital.issue("pacs")
    with storescp(tmp_path / "pacs", *dcmtk_identity(pacs_files)) as pacs:
        tls = RemoteAE("PACS", "127.0.0.1", pacs.port, tls=modality, connection_timeout_seconds=5)
        [outcome] = send([radiograph()], tls)
    assert outcome.disposition is Disposition.DELIVERED
    assert len(list((tmp_path / "pacs").iterdir())) == 1
