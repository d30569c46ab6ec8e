"""Settings that are each allowed and make no sense together; each rule names the settings."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from worker.addresses import ANYONE, Target

if TYPE_CHECKING:
    from worker.settings import Settings

_SHORTEST_PDU_LENGTH: Final = 4096
_EVERY_INTERFACE: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


def contradictions(settings: "Settings") -> Iterator[str]:
    """What does not fit together.

    Args:
        settings: each value of which is allowed by itself.

    Yields:
        Sentences for the operator, each with the names of its settings.
    """
    yield from _times(settings)
    yield from _limits(settings)
    yield from _tls(settings)
    yield from _callers(settings)
    yield from _targets(settings)


def _times(settings: "Settings") -> Iterator[str]:
    # A task that outlives the visibility timeout is handed out twice while it still runs.
    if settings.reading_time_limit_seconds >= settings.visibility_timeout_seconds:
        yield (
            "reading_time_limit_seconds must be below visibility_timeout_seconds, else the "
            "broker hands out tasks that still run; lower the first or raise the second"
        )
    # A film is opened and then decoded; whoever waits must outlive both.
    if 2 * settings.decode_time_limit_seconds >= settings.reading_time_limit_seconds:
        yield (
            "decode_time_limit_seconds must be below half of reading_time_limit_seconds, else a "
            "slow film ends its worker; lower the first or raise the second"
        )
    for shorter, longer in (
        ("retry_seconds", "longest_retry_seconds"),
        ("quiet_seconds", "longest_wait_seconds"),
        ("idle_timeout_seconds", "longest_association_seconds"),
    ):
        if getattr(settings, shorter) > getattr(settings, longer):
            yield f"{shorter} must not be above {longer}; lower the first or raise the second"


def _limits(settings: "Settings") -> Iterator[str]:
    # The default for a peer may be above a node's small limit, which then holds for it too.
    if (
        "maximum_associations_per_peer" in settings.model_fields_set
        and settings.maximum_associations_per_peer > settings.maximum_associations
    ):
        yield "maximum_associations_per_peer must not be above maximum_associations"
    for peer in settings.allowed_peers:
        if (peer.maximum_associations or 0) > settings.maximum_associations:
            yield f"allowed_peers: max= of {peer.ae_title} must not be above maximum_associations"
    if settings.maximum_received_mib < settings.maximum_object_mib:
        yield "maximum_received_mib must not be below maximum_object_mib"
    if 0 < settings.maximum_pdu_length < _SHORTEST_PDU_LENGTH:
        yield (
            f"maximum_pdu_length must be 0, which leaves it to the peers, or at least "
            f"{_SHORTEST_PDU_LENGTH} bytes"
        )
    if settings.broker_url is None and settings.broker_port == settings.listener_port:
        yield "broker_port and listener_port must differ"


def _tls(settings: "Settings") -> Iterator[str]:
    names = ("tls_certificate", "tls_private_key", "tls_trusted")
    missing = [name for name in names if getattr(settings, name) is None]
    if missing and len(missing) < len(names):
        yield f"{', '.join(missing)} must be set too: TLS needs {', '.join(names)}"
    for peer in settings.allowed_peers if missing else ():
        if peer.certified_name is not None:
            yield (
                f"allowed_peers: certificate= of {peer.ae_title} needs {', '.join(missing)}: "
                "without TLS no peer shows a certificate"
            )
    for target in settings.targets:
        if target.tls is None:
            continue
        own = (target.tls.certificate, target.tls.private_key, target.tls.trusted)
        if missing and None in own:
            yield (
                f"targets: {target.name} is called over TLS, but {', '.join(missing)} must be set "
                "for that"
            )


def _callers(settings: "Settings") -> Iterator[str]:
    if not settings.allowed_peers and not _is_local(settings.listener_host):
        yield (
            f"listener_host {settings.listener_host} can be reached from other machines, but "
            "allowed_peers is empty: name those who may call, e.g. CT1@10.0.0.0/24, or write *@* "
            "to admit everyone"
        )
    for target in settings.targets:
        if target.ae_title is None or not settings.allowed_peers:
            continue
        entries = [peer for peer in settings.allowed_peers if peer.is_called(target.ae_title)]
        if any(peer.may_receive or peer.ae_title == ANYONE for peer in entries):
            continue
        if entries:
            yield (
                f"targets: {target.name} gets results, but allowed_peers does not let "
                f"{target.ae_title} receive; write send+receive or receive behind it"
            )
        elif target.commit:
            yield (
                f"targets: {target.name} is asked for storage commitment, but allowed_peers does "
                f"not let {target.ae_title} call to report it; add it with the right to receive"
            )


def _targets(settings: "Settings") -> Iterator[str]:
    names = [target.name for target in settings.targets]
    if len(set(names)) != len(names):
        yield "targets must have different names; write NAME=AE_TITLE@HOST:PORT to name them"
    for target in settings.targets:
        if _is_ourselves(target, settings):
            yield f"targets: {target.name} is this node itself"


def _is_ourselves(target: Target, settings: "Settings") -> bool:
    if target.port != settings.listener_port or target.host is None:
        return False
    ours = {settings.listener_host, socket.gethostname()}
    return target.host in ours or (
        _is_local(target.host)
        and (settings.listener_host in _EVERY_INTERFACE or _is_local(settings.listener_host))
    )


def _is_local(host: str) -> bool:
    """Whether a host is this machine by any of the names that need no look-up."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
