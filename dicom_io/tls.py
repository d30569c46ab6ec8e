"""TLS for associations: the BCP 195 profile (PS3.15 B.12), with both sides identified."""

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from dicom_io.errors import SettingsError

# TLS 1.2 suites with forward secrecy and authenticated encryption; TLS 1.3 has no others.
_TLS_1_2_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK"


@dataclass(frozen=True)
class TlsFiles:
    """PEM files that identify us and those whom we trust.

    Attributes:
        certificate: our certificate, followed by its chain.
        private_key: our private key, not encrypted; readable for the node alone.
        trusted: certificates of the authorities whose peers are let in.
        check_peer_name: as requestor, whether the peer's certificate must name its host.
        minimum_version: oldest version of TLS that is spoken; 1.2 or 1.3.
    """

    certificate: Path
    private_key: Path
    trusted: Path
    check_peer_name: bool = True
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2


def acceptor_context(files: TlsFiles) -> ssl.SSLContext:
    """Context for accepting associations; a peer without a trusted certificate is refused.

    Raises:
        SettingsError: a file is missing, is no PEM file, or key and certificate do not belong
            together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _completed(context, files)


def requestor_context(files: TlsFiles) -> ssl.SSLContext:
    """Context for requesting associations; a peer without a trusted certificate is refused.

    Raises:
        SettingsError: see ``acceptor_context``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = files.check_peer_name
    return _completed(context, files)


class ReloadingContext:
    """A TLS context that follows its files: a renewed certificate holds from the next connection.

    Args:
        files: the files to follow.
        make: ``acceptor_context`` or ``requestor_context``.

    Raises:
        SettingsError: the files cannot be used now.
    """

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._lock = threading.Lock()
        self._seen = _version_of(files)
        self._context = make(files)

    def __call__(self) -> ssl.SSLContext:
        """The context of the files as they are now; while they are unusable, the last good one."""
        with self._lock:
            version = _version_of(self._files)
            if version != self._seen:
                try:
                    self._context = self._make(self._files)
                    self._seen = version
                except SettingsError:
                    # Half of a renewal may be on the disk; the next connection looks again.
                    return self._context
            return self._context


def certified_names(connection: socket.socket) -> frozenset[str]:
    """The names that a peer has proved in its TLS handshake.

    Returns:
        DNS names of the subject alternative name and the common name of the subject, in lower case,
        as they stand in the certificate: a wildcard names no peer. Empty without TLS.
    """
    certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    if not certificate:
        return frozenset()
    alternatives = cast(tuple[tuple[str, str], ...], certificate.get("subjectAltName", ()))
    subject = cast(tuple[tuple[tuple[str, str], ...], ...], certificate.get("subject", ()))
    names = [value for kind, value in alternatives if kind == "DNS"]
    names += [value for part in subject for kind, value in part if kind == "commonName"]
    return frozenset(name.lower() for name in names)


def _completed(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = max(files.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers(_TLS_1_2_CIPHERS)
    try:
        context.load_cert_chain(files.certificate, files.private_key)
        context.load_verify_locations(files.trusted)
    except OSError as cause:  # ssl.SSLError is one
        raise SettingsError(
            f"TLS files {files.certificate}, {files.private_key} and {files.trusted} "
            f"cannot be used: {type(cause).__name__}; check that they are PEM and belong together"
        ) from cause
    return context


def _version_of(files: TlsFiles) -> tuple[tuple[int, int] | None, ...]:
    """What changes when a file is renewed."""
    versions: list[tuple[int, int] | None] = []
    for path in (files.certificate, files.private_key, files.trusted):
        try:
            state = path.stat()
            versions.append((state.st_mtime_ns, state.st_ino))
        except OSError:
            versions.append(None)
    return tuple(versions)
