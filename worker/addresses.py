"""How peers are written in settings.

``PACS@10.0.0.1:104 seg+sc`` and ``WEB=https://archive/dicom-web sr`` are targets, with the kinds of
result that each is to get; ``CT1@10.0.0.0/24`` is a sender.
"""

import json
import re
from collections.abc import Collection
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dicom_io.errors import SettingsError
from dicom_io.result_profile import DEFAULT_PROFILE, profile, profile_text
from dicom_io.uids import ResultKind

AE_TITLE_LIMIT: Final = 16
URL_LIMIT: Final = 512
_NAME: Final = r"(?:(?P<name>[^=@]{1,64})=)?"
_RESULTS: Final = r"(?:\s+(?P<results>[^\s@=]+))?"
_AE_TARGET: Final = re.compile(
    _NAME + r"(?P<ae_title>[^@]+)@(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:@/\[\]]+)"
    r":(?P<port>[0-9]{1,5})" + _RESULTS
)
_WEB_TARGET: Final = re.compile(_NAME + r"(?P<url>https?://\S+)" + _RESULTS, re.IGNORECASE)
_ALLOWED_PEER: Final = re.compile(r"(?P<ae_title>[^@]+)@(?P<network>[^@\s]+)")


class Target(BaseModel):
    """A peer that results are sent to: a remote AE, or a DICOMweb service.

    Written ``[NAME=]AE_TITLE@HOST:PORT [RESULTS]`` or ``[NAME=]https://HOST/PATH [RESULTS]``, where
    ``RESULTS`` is a result profile such as ``seg+sc+sr``.

    Attributes:
        name: how this node calls it; the AE title, or the URL's host, where none is given.
        ae_title: its AE title; None for a DICOMweb service.
        host: host name or address; None for a DICOMweb service.
        port: TCP port; None for a DICOMweb service.
        url: root of the DICOMweb service, without a slash at its end; None for a remote AE.
        results: the kinds of result object that it gets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    ae_title: str | None = None
    host: str | None = Field(default=None, min_length=1, max_length=253)
    port: int | None = Field(default=None, ge=1, le=65535)
    url: str | None = Field(default=None, max_length=URL_LIMIT)
    results: frozenset[ResultKind] = DEFAULT_PROFILE

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            text = value.strip()
            match = _WEB_TARGET.fullmatch(text) or _AE_TARGET.fullmatch(text)
            if match is None:
                raise ValueError(
                    "a target is written AE_TITLE@HOST:PORT or https://HOST/PATH, and after a "
                    "space what it gets, e.g. PACS@10.0.0.1:104 seg+sc"
                )
            value = {key: part for key, part in match.groupdict().items() if part is not None}
            if "host" in value:
                value["host"] = value["host"].strip("[]")
        if not isinstance(value, dict):
            return value
        return {"name": value.get("ae_title") or _host_of(value.get("url")), **value}

    @field_validator("ae_title")
    @classmethod
    def _valid_ae_title(cls, value: str | None) -> str | None:
        return None if value is None else check_ae_title(value)

    @field_validator("url")
    @classmethod
    def _valid_url(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value)

    @field_validator("results", mode="before")
    @classmethod
    def _profile_from_text(cls, value: Any) -> Any:
        names = value.split("+") if isinstance(value, str) else value
        if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
            return value
        try:
            return profile(names)
        except SettingsError as problem:
            raise ValueError(str(problem)) from None

    @model_validator(mode="after")
    def _is_one_kind_of_peer(self) -> "Target":
        address = (self.ae_title, self.host, self.port)
        if (None in address) if self.url is None else (address != (None, None, None)):
            raise ValueError("a target has an AE title, a host and a port, or else a url")
        return self

    @property
    def address(self) -> str:
        """Where it is, as an operator writes it: ``HOST:PORT`` or the URL."""
        if self.url is not None:
            return self.url
        host = f"[{self.host}]" if ":" in (self.host or "") else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        calling = f"{self.ae_title}@" if self.url is None else ""
        default_name = self.ae_title or _host_of(self.url)
        name = "" if self.name == default_name else f"{self.name}="
        return f"{name}{calling}{self.address} {profile_text(self.results)}"


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


def check_url(value: str) -> str:
    """Give the root of a DICOMweb service without a slash at its end.

    Raises:
        ValueError: it is no http(s) URL of a service, or holds what has no place in a list that
            is printed: user, password, query.
    """
    parts = urlsplit(value)
    try:
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("a DICOMweb target is written https://HOST[:PORT]/PATH")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("the URL of a target holds no user, password, query or fragment")
    return value.rstrip("/")


def _host_of(url: object) -> str:
    """The host that a URL names; empty where it names none."""
    try:
        return (urlsplit(url).hostname or "") if isinstance(url, str) else ""
    except ValueError:
        return ""


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
