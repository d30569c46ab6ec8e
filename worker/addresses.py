"""How peers are written in settings.

``PACS@10.0.0.1:104 seg+sc tls`` and ``WEB=https://archive/dicom-web sr`` are targets, with the
kinds of result that each is to get; ``CT1@10.0.0.0/24 send max=4`` is a peer that may call.
"""

import json
import re
from collections.abc import Collection
from ipaddress import ip_network
from pathlib import Path
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
_TARGET_OPTIONS: Final = frozenset({"tls", "commit"})
_ALLOWED_PEER: Final = re.compile(
    r"(?P<ae_title>[^@]+)@(?P<network>[^@\s]+)"
    r"(?:\s+(?P<rights>send|receive|send\+receive|receive\+send))?"
    r"(?:\s+max=(?P<maximum_associations>[0-9]{1,6}))?"
    r"(?:\s+port=(?P<port>[0-9]{1,5}))?"
    r"(?:\s+certificate=(?P<certified_name>\S+))?"
)
ANYONE: Final = "*"


class TargetTls(BaseModel):
    """The files with which a target is called over TLS.

    Attributes:
        certificate: PEM file of our certificate and its chain; None takes ``tls_certificate``.
        private_key: PEM file of our key; None takes ``tls_private_key``.
        trusted: PEM file of authorities; None takes ``tls_trusted``.
        check_name: whether the target's certificate must name the host that is called.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path | None = None
    private_key: Path | None = None
    trusted: Path | None = None
    check_name: bool = True


class Target(BaseModel):
    """A peer that results are sent to: a remote AE, or a DICOMweb service.

    Written ``[NAME=]AE_TITLE@HOST:PORT [RESULTS] [tls] [commit]`` or
    ``[NAME=]https://HOST/PATH [RESULTS]``, where ``RESULTS`` is a result profile such as
    ``seg+sc+sr``.

    Attributes:
        name: how this node calls it; the AE title, or the URL's host, where none is given.
        ae_title: its AE title; None for a DICOMweb service.
        host: host name or address; None for a DICOMweb service.
        port: TCP port; None for a DICOMweb service.
        url: root of the DICOMweb service, without a slash at its end; None for a remote AE.
        results: the kinds of result object that it gets.
        tls: files for TLS; None sends without. A DICOMweb service says it by its URL.
        commit: whether a result counts as delivered only when the target has committed to keep it
            (storage commitment, PS3.4 annex J).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    ae_title: str | None = None
    host: str | None = Field(default=None, min_length=1, max_length=253)
    port: int | None = Field(default=None, ge=1, le=65535)
    url: str | None = Field(default=None, max_length=URL_LIMIT)
    results: frozenset[ResultKind] = DEFAULT_PROFILE
    tls: TargetTls | None = None
    commit: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            text, options = _split_options(value.strip())
            match = _WEB_TARGET.fullmatch(text) or _AE_TARGET.fullmatch(text)
            if match is None:
                raise ValueError(
                    "a target is written AE_TITLE@HOST:PORT or https://HOST/PATH, and after a "
                    "space what it gets, e.g. PACS@10.0.0.1:104 seg+sc"
                )
            value = {key: part for key, part in match.groupdict().items() if part is not None}
            if "host" in value:
                value["host"] = value["host"].strip("[]")
            value |= {"tls": TargetTls() if "tls" in options else None}
            value |= {"commit": "commit" in options}
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
        if self.url is not None and (self.tls is not None or self.commit):
            raise ValueError("tls and commit are for a target with an AE title, not for a url")
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
        options = (" tls" if self.tls is not None else "") + (" commit" if self.commit else "")
        return f"{name}{calling}{self.address} {profile_text(self.results)}{options}"


class AllowedPeer(BaseModel):
    """A remote AE that may call this node.

    Written ``AE_TITLE@ADDRESS`` or ``AE_TITLE@NETWORK/BITS``, and after it, in this order, what it
    may (``send``, ``receive``, ``send+receive``), ``max=``, ``port=`` and ``certificate=``. ``*``
    stands for any AE title or any address.

    Attributes:
        ae_title: its calling AE title, or ``*``.
        network: address or network in CIDR notation that it calls from, or ``*``.
        may_send: whether it may send instances.
        may_receive: whether it may be a target and report storage commitment of our results.
        maximum_associations: associations that it may have open at a time; None is the node's rule.
        port: where it takes reports of storage commitment; None: in its own association only, or
            where a target of the same AE title listens.
        certified_name: DNS name or common name that its TLS certificate must prove; None for every
            certificate of a trusted authority.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: str
    network: str
    may_send: bool = True
    may_receive: bool = False
    maximum_associations: int | None = Field(default=None, ge=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    certified_name: str | None = Field(default=None, min_length=1, max_length=253)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _ALLOWED_PEER.fullmatch(value.strip())
        if match is None:
            raise ValueError(
                "a peer is written AE_TITLE@ADDRESS or AE_TITLE@10.0.0.0/24, and after a space "
                "what it may, e.g. CT1@10.0.0.0/24 send max=4, or PACS@10.0.0.1 receive port=104"
            )
        written = {key: part for key, part in match.groupdict().items() if part is not None}
        rights = written.pop("rights", "send").split("+")
        return {**written, "may_send": "send" in rights, "may_receive": "receive" in rights}

    @field_validator("ae_title")
    @classmethod
    def _valid_ae_title(cls, value: str) -> str:
        return check_ae_title(value)

    @field_validator("network")
    @classmethod
    def _valid_network(cls, value: str) -> str:
        if value == ANYONE:
            return value
        try:
            return str(ip_network(value, strict=False))
        except ValueError:
            raise ValueError(
                "the part after @ must be an address, a network such as 10.0.0.0/24, or *"
            ) from None

    @model_validator(mode="after")
    def _may_do_something(self) -> "AllowedPeer":
        if not (self.may_send or self.may_receive):
            raise ValueError("a peer that may neither send nor receive does not belong in the list")
        return self

    def is_called(self, ae_title: str) -> bool:
        """Whether the entry is about an AE title."""
        return self.ae_title in (ANYONE, ae_title)

    def __str__(self) -> str:
        rights = [word for word, right in self._rights() if right]
        limit = f" max={self.maximum_associations}" if self.maximum_associations else ""
        port = f" port={self.port}" if self.port else ""
        certificate = f" certificate={self.certified_name}" if self.certified_name else ""
        return f"{self.ae_title}@{self.network} {'+'.join(rights)}{limit}{port}{certificate}"

    def _rights(self) -> tuple[tuple[str, bool], ...]:
        return (("send", self.may_send), ("receive", self.may_receive))


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


def _split_options(text: str) -> tuple[str, set[str]]:
    """The words at the end of a target's text that are options, and what is before them."""
    options: set[str] = set()
    while True:
        before, _, word = text.rpartition(" ")
        if word not in _TARGET_OPTIONS:
            return text, options
        options.add(word)
        text = before.rstrip()


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
