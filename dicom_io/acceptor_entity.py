"""The application entity that accepts associations: what it offers, and how long it waits."""

from typing import Final

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from dicom_io.commitment_service import COMMITMENT_SYNTAXES
from dicom_io.listener_configuration import ListenerConfiguration
from dicom_io.storage_commitment import PUSH_MODEL
from dicom_io.transfer_syntaxes import CHEST_STORAGE_CLASSES, decodable_transfer_syntaxes
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_VERIFICATION: Final = UID("1.2.840.10008.1.1")

_PYNETDICOM_LOGGING: Final = (
    (evt.EVT_DIMSE_RECV, standard_dimse_recv_handler),
    (evt.EVT_DIMSE_SENT, standard_dimse_sent_handler),
    (evt.EVT_PDU_RECV, standard_pdu_recv_handler),
    (evt.EVT_PDU_SENT, standard_pdu_sent_handler),
)


def acceptor_entity(configuration: ListenerConfiguration, *, commits: bool) -> ApplicationEntity:
    """The entity of a listener.

    Args:
        configuration: its AE title, limits and times.
        commits: whether it offers storage commitment.
    """
    entity = ApplicationEntity(configuration.ae_title.strip())
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = configuration.maximum_pdu_size
    # The access policy counts; pynetdicom would count those that are only asking as well.
    entity.maximum_associations = configuration.maximum_connections
    entity.acse_timeout = configuration.association_timeout_seconds
    entity.dimse_timeout = configuration.idle_timeout_seconds
    entity.network_timeout = configuration.idle_timeout_seconds
    for storage_class in CHEST_STORAGE_CLASSES:
        entity.add_supported_context(storage_class, list(decodable_transfer_syntaxes()))
    entity.add_supported_context(_VERIFICATION)
    if commits:
        # Both roles: peers ask us, and report to us what we asked them.
        entity.add_supported_context(PUSH_MODEL, COMMITMENT_SYNTAXES, scu_role=True, scp_role=True)
    return entity


def silence_pynetdicom(association: Association) -> None:
    """Have no PDU described for a log: that costs time, whether anyone listens or not."""
    for event, handler in _PYNETDICOM_LOGGING:
        association.unbind(event, handler)
