"""How remote AEs are written in settings: ``PACS@10.0.0.1:104`` and ``CT1@10.0.0.0/24``."""

import json
import re
from ipaddress import ip_network
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

AE_TITLE_LIMIT: Final = 16
_TARGET: Final = re.compile(
    r"(?:(?P<name>[^=@]{1,64})=)?(?P<ae_title>[^@]+)@(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:@/\[\]]+)"
    r":(?P<port>[0-9]{1,5})"
)
_ALLOWED_PEER: Final = re.compile(r"(?P<ae_title>[^@]+)@(?P<network>[^@\s]+)")


class Target(BaseModel):
    """A remote AE that results are sent to; written ``[NAME=]AE_TITLE@HOST:PORT``.

    Attributes:
        name: how this node calls it; the AE title where none is given.
        ae_title: its AE title.
        host: host name or address.
        port: TCP port.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    ae_title: str
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(ge=1, le=65535)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {"name": value.get("ae_title", ""), **value}
        if not isinstance(value, str):
            return value
        match = _TARGET.fullmatch(value.strip())
        if match is None:
            raise ValueError("a target is written AE_TITLE@HOST:PORT, e.g. PACS@10.0.0.1:104")
        parts = match.groupdict()
        return {
            **parts,
            "host": parts["host"].strip("[]"),
            "name": parts["name"] or parts["ae_title"],
        }

    @field_validator("ae_title")
    @classmethod
    def _valid_ae_title(cls, value: str) -> str:
        return check_ae_title(value)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        name = "" if self.name == self.ae_title else f"{self.name}="
        return f"{name}{self.ae_title}@{host}:{self.port}"


class AllowedPeer(BaseModel):
    """A remote AE that may send; written ``AE_TITLE@ADDRESS`` or ``AE_TITLE@NETWORK/BITS``.

    Attributes:
        ae_title: its calling AE title.
        network: address or network in CIDR notation that it calls from; ``*`` is any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: str
    network: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _ALLOWED_PEER.fullmatch(value.strip())
        if match is None:
            raise ValueError("a peer is written AE_TITLE@ADDRESS or AE_TITLE@10.0.0.0/24")
        return match.groupdict()

    @field_validator("ae_title")
    @classmethod
    def _valid_ae_title(cls, value: str) -> str:
        return check_ae_title(value)

    @field_validator("network")
    @classmethod
    def _valid_network(cls, value: str) -> str:
        if value == "*":
            return value
        try:
            return str(ip_network(value, strict=False))
        except ValueError:
            raise ValueError(
                "the part after @ must be an address, a network such as 10.0.0.0/24, or *"
            ) from None

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.network}"


def check_ae_title(value: str) -> str:
    """Give an AE title without padding.

    Raises:
        ValueError: it is no AE title by PS3.5 6.2: 1 to 16 characters of the default repertoire,
            neither control characters nor backslash, and not only spaces.
    """
    title = value.strip(" ")
    if not 1 <= len(title) <= AE_TITLE_LIMIT or not all(
        " " <= character <= "~" and character != "\\" for character in title
    ):
        raise ValueError("an AE title has 1 to 16 ASCII characters and no backslash")
    return title


def split_list(value: Any) -> Any:
    """Turn a comma-separated or JSON list, as it stands in a variable, into a list.

    Raises:
        ValueError: it starts like JSON but is none.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith(("[{", '["')) or text == "[]":
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise ValueError("starts like a JSON list but is not one") from None
    return [part.strip() for part in text.split(",") if part.strip()]
