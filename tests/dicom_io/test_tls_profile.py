"""The BCP 195 profile (PS3.15 B.12) as handshakes show it, and what a failed one leaves behind."""

import contextlib
import select
import socket
import ssl
import time

import pytest

from dicom_io.access_control import Refusal
from dicom_io.listener import Listener
from dicom_io.tls import TlsFiles
from tests.dicom_io.association_requests import (
    associate_request,
    presentation_context,
    user_information,
)
from tests.dicom_io.certificates import create_authority
from tests.dicom_io.peers import RecordingIntake
from tests.programs import output_of

pytestmark = pytest.mark.interop

# What every OpenSSL still knows and BCP 195 (RFC 9325 4.1, 4.2) forbids.
FORBIDDEN_CIPHERS = (
    "AES128-SHA",  # no forward secrecy
    "AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-SHA",  # no authenticated encryption
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-ECDSA-NULL-SHA",  # no encryption
    "AECDH-AES128-SHA",  # no authentication
)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return create_authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def modality(hospital):
    return hospital.issue("modality")


@pytest.fixture
def intake():
    return RecordingIntake()


@pytest.fixture
def listen(listen, hospital):
    """Listeners that speak TLS, each with files of its own where a test gives none."""

    def start(tls: TlsFiles | None = None, **settings) -> Listener:
        return listen(tls or hospital.issue("node"), **settings)

    return start


def lax_client(files: TlsFiles) -> ssl.SSLContext:
    """A client that would speak anything that this machine's OpenSSL still can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(files.certificate, files.private_key)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    return context


def handshake(listener: Listener, context: ssl.SSLContext) -> str:
    """The cipher that is agreed on.

    Raises:
        OSError: none is.
    """
    with (
        socket.create_connection(("127.0.0.1", listener.port), timeout=20) as connection,
        context.wrap_socket(connection) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\n")  # under TLS 1.3 a refusal is seen only now
        assert secured.recv(1) == b"\x07"  # A-ABORT: it was heard
        return secured.cipher()[0]


def test_a_client_that_would_speak_anything_gets_the_best(listen, modality):
    assert handshake(listen(), lax_client(modality)).startswith("TLS_")


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_older_versions_are_not_agreed_on(listen, intake, modality, version):
    context = lax_client(modality)
    context.maximum_version = ssl.TLSVersion[version]
    with pytest.raises(OSError):  # noqa: PT011 - an alert or a closed connection
        handshake(listen(), context)
    assert intake.wait_for("refused") == [Refusal.NO_TLS]


@pytest.mark.parametrize("cipher", FORBIDDEN_CIPHERS)
def test_forbidden_ciphers_are_not_agreed_on(listen, intake, modality, cipher):
    context = lax_client(modality)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    assert cipher in {known["name"] for known in context.get_ciphers()}
    with pytest.raises(OSError):  # noqa: PT011 - an alert or a closed connection
        handshake(listen(), context)
    assert intake.wait_for("refused") == [Refusal.NO_TLS]


@pytest.mark.parametrize("key", ["ec", "rsa"])
@pytest.mark.parametrize(
    ("profile", "is_spoken"),
    [("+py", True), ("+px", True), ("+pz", True), ("+pa", False), ("+pn", False)],
    ids=["BCP 195 non-downgrading", "BCP 195", "BCP 195 extended", "AES", "NULL"],
)
def test_dcmtk_is_answered_by_the_bcp_195_profiles_only(listen, hospital, profile, is_spoken, key):
    listener = listen(hospital.issue("node", key=key))
    files = hospital.issue("dcmtk", key=key)
    identity = ["+tls", files.private_key, files.certificate, "+cf", files.trusted]
    printed = output_of("echoscu", "-v", profile, *identity, "127.0.0.1", str(listener.port))
    assert ("Received Echo Response (Success)" in printed) is is_spoken, printed


# --- who is refused is told of, and nobody else ----------------------------------------------


def test_certificates_that_are_not_trusted_are_told_of(
    listen, intake, tmp_path, hospital, modality
):
    listener = listen()
    stranger = create_authority(tmp_path / "stranger")
    for files in (hospital.issue("expired", days=-1), stranger.issue("foreign")):
        with pytest.raises(OSError):  # noqa: PT011 - an alert or a closed connection
            handshake(listener, lax_client(files))
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname, nameless.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(OSError):  # noqa: PT011 - an alert or a closed connection
        handshake(listener, nameless)
    assert intake.wait_for("refused", 3) == [Refusal.NO_TRUSTED_CERTIFICATE] * 3
    assert handshake(listener, lax_client(modality))


def test_a_peer_that_speaks_no_tls_is_told_of_and_a_health_check_is_not(listen, intake):
    listener = listen()
    for _ in range(20):
        socket.create_connection(("127.0.0.1", listener.port), timeout=20).close()
    request = associate_request(presentation_context(), user_information())
    with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as plain:
        plain.sendall(request)
        assert is_closed(plain)
    assert intake.wait_for("refused") == [Refusal.NO_TLS]


# --- slow handshakes -------------------------------------------------------------------------


def client_hello(files: TlsFiles) -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = lax_client(files).wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def trickle(connection: socket.socket, content: bytes) -> None:
    """Say something byte by byte until nobody listens any more; that must not take long."""
    deadline = time.monotonic() + 20
    for byte in content:
        if select.select([connection], [], [], 0.02)[0] and is_closed(connection):
            return
        assert time.monotonic() < deadline, "nobody hangs up"
        with contextlib.suppress(OSError):  # the other side is gone; the next look shows it
            connection.sendall(bytes([byte]))
    pytest.fail("everything was listened to")


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except OSError:
        return True


def test_a_handshake_that_trickles_in_is_cut_off(listen, modality):
    hello = client_hello(modality)
    assert len(hello) * 0.02 > 3
    listener = listen(association_timeout_seconds=0.5)
    with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as slow:
        trickle(slow, hello)


def test_the_handshakes_time_is_part_of_the_requests_time(listen, modality):
    listener = listen(association_timeout_seconds=1.0)
    with (
        socket.create_connection(("127.0.0.1", listener.port), timeout=20) as connection,
        lax_client(modality).wrap_socket(connection) as secured,
    ):
        trickle(secured, associate_request(presentation_context(), user_information()) * 3)
