"""How the listener listens, and to whom."""

from dataclasses import dataclass
from typing import Final

from dicom_io.access_control import AllowedPeer, printable_ae_title
from dicom_io.errors import SettingsError
from dicom_io.tls import TlsFiles

_PDU_OVERHEAD_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class ListenerConfiguration:
    """How to listen, and to whom.

    Attributes:
        ae_title: our AE title, 1 to 16 characters.
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        maximum_associations: associations at a time, of all peers together.
        maximum_associations_per_peer: associations at a time of one calling AE title, where
            ``allowed_calling`` says nothing else; None for no limit.
        maximum_half_open_per_address: TCP connections at a time of one address that have not
            requested an association yet; what is beyond is closed at once.
        require_called_ae_title: refuse peers that call us by another title.
        allowed_calling: peers that may call; empty for anyone.
        association_timeout_seconds: time for TLS handshake and association request.
        idle_timeout_seconds: longest silence of a peer before its association is aborted.
        maximum_association_seconds: longest association.
        maximum_object_bytes: longest encoded dataset; longer ones are refused for good.
        maximum_received_bytes: datasets in memory at a time, of all associations together; what is
            beyond is refused for the time being. None for no limit.
        maximum_pdu_size: PDU length offered to peers, in bytes; 0 lets them choose, and each of
            them may hold a PDU of a whole object in memory besides.
        tls: files for TLS; None listens without.
    """

    ae_title: str
    host: str = "127.0.0.1"
    port: int = 0
    maximum_associations: int = 32
    maximum_associations_per_peer: int | None = None
    maximum_half_open_per_address: int = 32
    require_called_ae_title: bool = False
    allowed_calling: tuple[AllowedPeer, ...] = ()
    association_timeout_seconds: float = 20.0
    idle_timeout_seconds: float = 60.0
    maximum_association_seconds: float = 4 * 3600.0
    maximum_object_bytes: int = 512 << 20
    maximum_received_bytes: int | None = 2048 << 20
    maximum_pdu_size: int = 4 << 20
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        if not self.ae_title.strip() or printable_ae_title(self.ae_title) != self.ae_title.strip():
            raise SettingsError(f"AE title {self.ae_title!r} must be 1 to 16 printable characters")
        for limit in ("maximum_associations", "maximum_half_open_per_address"):
            if getattr(self, limit) < 1:
                raise SettingsError(f"{limit} of the listener must be at least 1")

    @property
    def longest_pdu_bytes(self) -> int:
        """What is read at a time: one object, where peers are left to choose, and its headers."""
        return (self.maximum_pdu_size or self.maximum_object_bytes) + _PDU_OVERHEAD_BYTES

    @property
    def maximum_connections(self) -> int:
        """TCP connections at a time: beyond the accepted ones, some are asking or being refused."""
        return 2 * self.maximum_associations + 16
