"""How the settings say that peers are called and call us: TLS files, limits and timeouts."""

import ssl
from dataclasses import replace
from typing import Final

from dicom_io.access_control import AllowedPeer
from dicom_io.dicomweb import DicomWebService
from dicom_io.listener_configuration import ListenerConfiguration
from dicom_io.remote import RemoteAE
from dicom_io.tls import TlsFiles, requestor_context
from worker import addresses
from worker.addresses import ANYONE, Target, TargetTls
from worker.settings import Settings

_REPORT_SECONDS: Final = 5.0
_TLS_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def listener_configuration(settings: Settings) -> ListenerConfiguration:
    """The settings as the listener takes them."""
    return ListenerConfiguration(
        ae_title=settings.ae_title,
        host=settings.listener_host,
        port=settings.listener_port,
        maximum_associations=settings.maximum_associations,
        maximum_associations_per_peer=settings.maximum_associations_per_peer,
        maximum_half_open_per_address=settings.maximum_half_open_per_address,
        require_called_ae_title=settings.require_called_ae_title,
        allowed_calling=tuple(_entry_of(peer) for peer in settings.allowed_peers),
        association_timeout_seconds=settings.association_timeout_seconds,
        idle_timeout_seconds=settings.idle_timeout_seconds,
        maximum_association_seconds=settings.longest_association_seconds,
        maximum_object_bytes=settings.maximum_object_mib << 20,
        maximum_received_bytes=settings.maximum_received_mib << 20,
        maximum_pdu_size=settings.maximum_pdu_length,
        tls=_tls_files(settings, TargetTls()) if settings.tls_certificate else None,
    )


def remote_of(settings: Settings, target: Target) -> RemoteAE:
    """A target as the sender calls it.

    Args:
        settings: of the node.
        target: one with an AE title, not a DICOMweb service.
    """
    return RemoteAE(
        ae_title=target.ae_title or "",
        host=target.host or "",
        port=target.port or 0,
        calling_ae_title=settings.ae_title,
        tls=None if target.tls is None else _tls_files(settings, target.tls),
        connection_timeout_seconds=settings.connection_timeout_seconds,
        response_timeout_seconds=settings.response_timeout_seconds,
    )


def remote_at(settings: Settings, ae_title: str, host: str, port: int) -> RemoteAE:
    """A peer as the sender calls it, by its address, as it stands in the database.

    A target of the settings at this address lends its TLS files; anyone else is called without.
    """
    for target in settings.targets:
        if (target.ae_title, target.host, target.port) == (ae_title, host, port):
            return remote_of(settings, target)
    return remote_of(settings, Target(name=ae_title, ae_title=ae_title, host=host, port=port))


def return_address(settings: Settings, ae_title: str, host: str) -> RemoteAE | None:
    """Where a peer takes reports of storage commitment in an association of our own.

    Args:
        settings: of the node.
        ae_title: how the peer called itself.
        host: IP address that it called from.

    Returns:
        The target of this AE title, else the port that ``allowed_peers`` names at this address,
        over TLS if our own listener speaks it; None if neither is known.
    """
    target = next((t for t in settings.targets if t.ae_title == ae_title), None)
    for peer in settings.allowed_peers if target is None else ():
        if peer.port and peer.is_called(ae_title) and _entry_of(peer).may_come_from(host):
            tls = TargetTls(check_name=False) if settings.tls_certificate else None
            target = Target(name=ae_title, ae_title=ae_title, host=host, port=peer.port, tls=tls)
            break
    if target is None:
        return None
    # A peer that hangs must not keep the listener from stopping in time.
    return replace(
        remote_of(settings, target),
        connection_timeout_seconds=_REPORT_SECONDS,
        association_timeout_seconds=_REPORT_SECONDS,
        response_timeout_seconds=_REPORT_SECONDS,
    )


def web_service_at(settings: Settings, url: str) -> DicomWebService:
    """A DICOMweb service as the sender calls it."""
    certificate = None
    if settings.tls_certificate is not None and settings.tls_private_key is not None:
        certificate = (settings.tls_certificate, settings.tls_private_key)
    return DicomWebService(
        url=url,
        authorization=settings.dicomweb_authorization,
        trusted=settings.dicomweb_trusted,
        certificate=certificate,
        connection_timeout_seconds=settings.connection_timeout_seconds,
        response_timeout_seconds=settings.response_timeout_seconds,
        maximum_answer_bytes=settings.maximum_object_mib << 20,
    )


def require_usable_tls_files(settings: Settings) -> None:
    """Refuse at start what no target could be called with.

    Raises:
        SettingsError: a TLS file of a target is missing, or does not fit the others.
    """
    for target in settings.targets:
        if target.tls is not None:
            requestor_context(_tls_files(settings, target.tls))


def _entry_of(peer: addresses.AllowedPeer) -> AllowedPeer:
    return AllowedPeer(
        None if peer.ae_title == ANYONE else peer.ae_title,
        () if peer.network == ANYONE else (peer.network,),
        peer.maximum_associations,
        peer.may_send,
        peer.certified_name,
    )


def _tls_files(settings: Settings, own: TargetTls) -> TlsFiles:
    certificate = own.certificate or settings.tls_certificate
    private_key = own.private_key or settings.tls_private_key
    trusted = own.trusted or settings.tls_trusted
    if certificate is None or private_key is None or trusted is None:
        raise AssertionError("settings with half of the TLS files were refused")
    return TlsFiles(
        certificate=certificate,
        private_key=private_key,
        trusted=trusted,
        check_peer_name=own.check_name,
        minimum_version=_TLS_VERSIONS[settings.tls_minimum_version],
    )
