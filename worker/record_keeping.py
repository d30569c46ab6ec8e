"""What the sweeper does for the records beside its own work: chain, retention, audit messages."""

import logging
import socket
from functools import partial
from typing import Final

from dicom_io.errors import SettingsError
from dicom_io.storage import InstanceStore
from dicom_io.tls import TlsFiles, requestor_context
from worker.atna import Send, forward_batch
from worker.atna_events import ThisNode
from worker.audit_chain import chain_new_entries
from worker.clock import utc_now
from worker.database import Database
from worker.periodic import PeriodicWork
from worker.removal import delete_noted_files
from worker.retention import RetentionRules, remove_expired
from worker.settings import Settings
from worker.syslog import SyslogServer, send_by_tls, send_by_udp, syslog_server

_LOG = logging.getLogger(__name__)

_ENTRIES_AT_A_TIME: Final = 500
_FILES_AT_A_TIME: Final = 100
_CHAIN_SECONDS: Final = 0.5
_RETENTION_SECONDS: Final = 30.0
_QUARANTINE_SECONDS: Final = 600.0
_AUDIT_SECONDS: Final = 1.0


def record_keeping(
    settings: Settings, database: Database, store: InstanceStore
) -> list[PeriodicWork]:
    """The work that the settings ask for.

    Args:
        settings: of the node.
        database: with the current schema.
        store: where originals and results lie.

    Raises:
        SettingsError: audit messages are to go over TLS, and its files are missing or wrong.
    """
    rules = RetentionRules(settings.keep_for, settings.keep_bytes)

    def chain() -> bool:
        return chain_new_entries(database, _ENTRIES_AT_A_TIME) == _ENTRIES_AT_A_TIME

    def remove() -> bool:
        now = utc_now()
        removed = remove_expired(database, rules, now)
        # Also what a purge left that was ended in the middle of its work.
        deleted = delete_noted_files(database, store, now, _FILES_AT_A_TIME)
        return removed == rules.studies_at_a_time or deleted == _FILES_AT_A_TIME

    def clear_quarantine() -> bool:
        if rules.keep_for is not None:
            cleared = store.quarantine.remove_older_than((utc_now() - rules.keep_for).timestamp())
            if cleared:
                _LOG.info("the quarantine: %d objects deleted, their time was over", cleared)
        return False

    works = [
        PeriodicWork("the chain of the event log", _CHAIN_SECONDS, chain),
        PeriodicWork("retention", _RETENTION_SECONDS, remove),
        PeriodicWork("retention in the quarantine", _QUARANTINE_SECONDS, clear_quarantine),
    ]
    if settings.audit_server is not None:
        send = _sender_of(settings, syslog_server(settings.audit_server))
        node = ThisNode(settings.ae_title, socket.gethostname())
        tell = partial(forward_batch, database, send, node)
        works.append(PeriodicWork("the sending of audit messages", _AUDIT_SECONDS, tell))
    return works


def _sender_of(settings: Settings, server: SyslogServer) -> Send:
    if server.transport == "udp":
        return partial(send_by_udp, server)
    if not (settings.tls_certificate and settings.tls_private_key and settings.tls_trusted):
        raise SettingsError(
            "audit_server over tls needs tls_certificate, tls_private_key and tls_trusted; set them"
        )
    files = TlsFiles(settings.tls_certificate, settings.tls_private_key, settings.tls_trusted)
    requestor_context(files)  # what is wrong with the files is said at the start
    return partial(send_by_tls, server, partial(requestor_context, files))
