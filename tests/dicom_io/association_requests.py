"""A-ASSOCIATE-RQ PDUs byte by byte (PS3.8 9.3.2), so that they can say what no library would."""

import struct

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.sop_class import Verification

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


def item(kind: int, content: bytes) -> bytes:
    """An item or sub-item with its length."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def presentation_context(
    number: int = 1,
    abstract_syntax: str = str(Verification),
    transfer_syntaxes: tuple[str, ...] = (str(ImplicitVRLittleEndian),),
) -> bytes:
    """A presentation context item (PS3.8 9.3.2.2)."""
    syntaxes = b"".join(item(0x40, uid.encode()) for uid in transfer_syntaxes)
    return item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract_syntax.encode()) + syntaxes)


def user_information(*sub_items: bytes) -> bytes:
    """User information: maximum length, implementation class, and whatever else."""
    own = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    return item(0x50, own + b"".join(sub_items))


def role_selection(sop_class_uid: str = str(Verification)) -> bytes:
    """A role selection sub-item that asks for both roles (PS3.7 D.3.3.4)."""
    uid = sop_class_uid.encode()
    return item(0x54, struct.pack(">H", len(uid)) + uid + b"\1\1")


def associate_request(
    *items: bytes, calling: bytes = b"MODALITY", called: bytes = b"MULTIMIX"
) -> bytes:
    """A whole PDU; the application context is put before the other items."""
    content = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    content += item(0x10, APPLICATION_CONTEXT.encode()) + b"".join(items)
    return b"\x01\x00" + struct.pack(">I", len(content)) + content
