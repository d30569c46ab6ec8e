"""An association request as the tree of its items, which a fuzzer reshapes; lengths stay sound.

Byte by byte damage hardly ever leaves a request that is well-formed and yet makes no sense.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Final

from tests.dicom_io.association_requests import item

_FIXED_BYTES: Final = 74  # PDU header, protocol version, AE titles, reserved (PS3.8 9.3.2)
_PRESENTATION_CONTEXT: Final = 0x20
_USER_INFORMATION: Final = 0x50
_HEAD_BYTES: Final = {_PRESENTATION_CONTEXT: 4, _USER_INFORMATION: 0}


@dataclass
class Item:
    """An item: a few bytes of its own, and sub-items where its kind has any."""

    kind: int
    content: bytes
    parts: list["Item"] = field(default_factory=list)

    def encoded(self) -> bytes:
        return item(self.kind, self.content + b"".join(part.encoded() for part in self.parts))


def items_of(content: bytes) -> list[Item]:
    """Take a sound list of items apart."""
    items = []
    while content:
        end = 4 + int.from_bytes(content[2:4], "big")
        kind, inside = content[0], content[4:end]
        head = _HEAD_BYTES.get(kind)
        if head is None:
            items.append(Item(kind, inside))
        else:
            items.append(Item(kind, inside[:head], items_of(inside[head:])))
        content = content[end:]
    return items


def reshaped(request: bytes, chance: random.Random) -> bytes:
    """The request with items dropped, multiplied, exchanged, emptied, renamed or moved."""
    items = items_of(request[_FIXED_BYTES:])
    for _ in range(chance.randint(1, 4)):
        siblings = chance.choice([items, *(one.parts for one in items if one.parts)])
        if siblings:
            _reshape(siblings, items, chance)
    content = request[6:_FIXED_BYTES] + b"".join(one.encoded() for one in items)
    return request[:2] + len(content).to_bytes(4, "big") + content


def _reshape(siblings: list[Item], items: list[Item], chance: random.Random) -> None:
    at = chance.randrange(len(siblings))
    victim = siblings[at]
    match chance.randrange(6):
        case 0:
            del siblings[at]
        case 1:
            siblings[at:at] = [victim] * chance.choice((1, 2, 50, 300))
        case 2:
            chance.shuffle(siblings)
        case 3:
            siblings[at] = replace(victim, content=b"", parts=[])
        case 4:
            siblings[at] = replace(victim, kind=chance.randrange(256))
        case 5:
            items.append(victim)
