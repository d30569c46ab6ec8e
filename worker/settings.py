"""Every setting of the node, with its default and its limits."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from dicom_io.decoding import DecodingLimits
from dicom_io.errors import SettingsError
from model import SHIPPED_MODEL
from worker.addresses import AllowedPeer, Target, check_ae_title, split_list
from worker.broker_tls import with_checked_certificate
from worker.settings_rules import contradictions
from worker.syslog import syslog_server

PREFIX: Final = "MULTIMIX_"


class Settings(BaseSettings):
    """Every setting of the node; frozen.

    Attributes:
        home: folder of everything that the node writes, mode 0700.
        database_url: SQLAlchemy URL; None is SQLite in ``home``.
        broker_url: URL of a Redis or Valkey server; None is the embedded Valkey. ``rediss://`` is
            TLS; the authorities that are trusted stand behind it as ``?ssl_ca_certs=FILE``.
        broker_port: TCP port of the embedded Valkey; 0 takes a free one.
        listener_host: address on which associations are accepted.
        listener_port: TCP port of the listener.
        ae_title: the node's own AE title.
        allowed_peers: who may call; empty admits everyone on this machine, and ``*@*`` everyone.
        require_called_ae_title: refuse peers that call this node by another AE title.
        maximum_associations: associations at a time, of all peers together.
        maximum_associations_per_peer: of one AE title, where ``allowed_peers`` says nothing else.
        maximum_half_open_per_address: connections of one address that requested no association yet.
        maximum_pdu_length: offered to peers, in bytes; 0 leaves it to them (PS3.8 D.1).
        maximum_object_mib: longest dataset that is taken, in MiB.
        maximum_received_mib: datasets that the listener holds in memory at a time, in MiB, of all
            associations together.
        association_timeout_seconds: time for the TLS handshake and the association request.
        idle_timeout_seconds: longest silence of a peer before its association is aborted.
        longest_association_seconds: an association that lasts longer is aborted.
        tls_certificate: PEM file of the node's certificate and chain; with it the listener speaks
            TLS only. Its two sisters are then needed too.
        tls_private_key: PEM file of its private key, not encrypted.
        tls_trusted: PEM file of the authorities whose peers are let in.
        tls_minimum_version: oldest version of TLS that is spoken.
        low_water_mark_mib: free disk space, in MiB, below which no instance is taken.
        quiet_seconds: pause after the last association of a study before it is read.
        longest_wait_seconds: a study is read this long after its first instance at the latest.
        targets: where results are sent.
        connection_timeout_seconds: time for the connection to a target, TLS included.
        response_timeout_seconds: time for a target's answer to one object.
        dicomweb_authorization: Authorization header for DICOMweb targets; a secret.
        dicomweb_trusted: PEM file of authorities of DICOMweb targets; None trusts the system's.
        commitment_wait_seconds: a target that has not reported storage commitment within this time
            is asked again.
        model_directory: weights and card of the model.
        device: torch device of the model.
        reader_processes: processes that read films; one a device.
        sender_processes: processes that send results.
        lease_seconds: a study whose worker gave no sign of life for so long is taken back.
        most_attempts: how often a film that ends its worker is tried.
        retry_seconds: pause before something that failed is tried again; doubles each time.
        longest_retry_seconds: longest such pause.
        reading_time_limit_seconds: a reading task that runs longer is killed.
        decode_time_limit_seconds: a film is given up for this attempt if opening it, or decoding
            it, takes longer.
        decode_memory_mib: address space of the process that decodes; one film of 100 megapixels
            takes 3,500, one of 9 megapixels 800.
        visibility_timeout_seconds: the broker hands out a task again after this long.
        give_up_after_hours: a result that could not be sent for so long is set aside.
        send_batch: most objects that go over one association.
        keep_days: originals and results are deleted so many days after their study was done or
            rejected, refused objects so many days after they were put into the quarantine; None
            keeps them.
        keep_gib: above so many GiB the studies that were done or rejected first are deleted first;
            None keeps them.
        audit_server: syslog server that is told of what happens by DICOM PS3.15 A.5, as
            ``udp://HOST:514`` or ``tls://HOST:6514``; None tells nobody.
        shutdown_seconds: time in which all parts have to end.
        log_format: ``console`` for people, ``json`` for programs.
        log_level: least severity that is logged.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    home: Path = Path("multimix-data")
    database_url: str | None = None
    broker_url: str | None = None
    broker_port: int = Field(default=0, ge=0, le=65535)

    listener_host: str = "127.0.0.1"
    listener_port: int = Field(default=11112, ge=1, le=65535)
    ae_title: str = "MULTIMIX"
    allowed_peers: Annotated[tuple[AllowedPeer, ...], NoDecode] = ()
    require_called_ae_title: bool = True
    maximum_associations: int = Field(default=32, ge=1, le=1000)
    maximum_associations_per_peer: int = Field(default=16, ge=1)
    maximum_half_open_per_address: int = Field(default=32, ge=1)
    maximum_pdu_length: int = Field(default=4 << 20, ge=0, le=1 << 27)
    maximum_object_mib: int = Field(default=512, ge=1, le=2047)
    maximum_received_mib: int = Field(default=2048, ge=1)
    association_timeout_seconds: float = Field(default=20.0, gt=0)
    idle_timeout_seconds: float = Field(default=60.0, gt=0)
    longest_association_seconds: float = Field(default=4 * 3600.0, gt=0)
    tls_certificate: Path | None = None
    tls_private_key: Path | None = None
    tls_trusted: Path | None = None
    tls_minimum_version: Literal["1.2", "1.3"] = "1.2"
    low_water_mark_mib: int = Field(default=512, ge=0)

    quiet_seconds: float = Field(default=3.0, ge=0, le=3600)
    longest_wait_seconds: float = Field(default=600.0, gt=0)
    targets: Annotated[tuple[Target, ...], NoDecode] = ()
    dicomweb_authorization: str | None = None
    dicomweb_trusted: Path | None = None
    connection_timeout_seconds: float = Field(default=10.0, gt=0)
    response_timeout_seconds: float = Field(default=60.0, gt=0)
    commitment_wait_seconds: float = Field(default=600.0, ge=1)

    model_directory: Path = SHIPPED_MODEL
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    reader_processes: int = Field(default=1, ge=1, le=64)
    sender_processes: int = Field(default=2, ge=1, le=64)

    lease_seconds: float = Field(default=15.0, ge=1)
    most_attempts: int = Field(default=3, ge=1)
    retry_seconds: float = Field(default=5.0, gt=0)
    longest_retry_seconds: float = Field(default=900.0, gt=0)
    reading_time_limit_seconds: int = Field(default=100, ge=1)
    decode_time_limit_seconds: float = Field(default=30.0, gt=0)
    decode_memory_mib: int = Field(default=4096, ge=512)
    visibility_timeout_seconds: int = Field(default=120, ge=2)
    give_up_after_hours: float = Field(default=72.0, gt=0)
    send_batch: int = Field(default=50, ge=1)

    keep_days: float | None = Field(default=None, gt=0)
    keep_gib: float | None = Field(default=None, gt=0)
    audit_server: str | None = None

    shutdown_seconds: float = Field(default=30.0, ge=2)
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose values come as arguments."""
        return env_settings, init_settings

    @field_validator("targets", mode="before")
    @classmethod
    def _split_targets(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("allowed_peers", mode="before")
    @classmethod
    def _split_allowed_peers(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator(
        "home",
        "model_directory",
        "tls_certificate",
        "tls_private_key",
        "tls_trusted",
        "dicomweb_trusted",
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("ae_title")
    @classmethod
    def _valid_ae_title(cls, value: str) -> str:
        return check_ae_title(value)

    @field_validator("audit_server")
    @classmethod
    def _valid_audit_server(cls, value: str | None) -> str | None:
        return str(syslog_server(value)) if value else None

    @field_validator("database_url")
    @classmethod
    def _valid_database_url(cls, value: str | None) -> str | None:
        if value and _driver(value) not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
            raise ValueError(
                "must be a URL that starts with sqlite:/// or postgresql+psycopg://, e.g. "
                "postgresql+psycopg://user:password@host/multimix"
            )
        return value or None

    @field_validator("broker_url")
    @classmethod
    def _valid_broker_url(cls, value: str | None) -> str | None:
        if value and _driver(value) not in ("redis", "rediss"):
            raise ValueError(
                "must be a URL that starts with redis:// or rediss://, e.g. redis://host:6379/0"
            )
        return with_checked_certificate(value) if value else None

    @model_validator(mode="after")
    def _settings_that_belong_together(self) -> "Settings":
        problems = list(contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def resolved_database_url(self) -> str:
        """The URL of the database that is used."""
        return self.database_url or f"sqlite:///{self.home / 'node.sqlite'}"

    @property
    def store_directory(self) -> Path:
        """Folder of the received and the made instances."""
        return self.home / "store"

    @property
    def low_water_mark_bytes(self) -> int:
        """``low_water_mark_mib`` in bytes."""
        return self.low_water_mark_mib << 20

    @property
    def results_low_water_mark_bytes(self) -> int:
        """Free disk space that results must leave.

        What was taken shall be answered also when nothing more is taken, so results may use most of
        what lies below the mark; the rest is for the database.
        """
        return self.low_water_mark_bytes // 4

    @property
    def broker_directory(self) -> Path:
        """Folder of the embedded broker."""
        return self.home / "broker"

    @property
    def quiet(self) -> timedelta:
        """``quiet_seconds`` as a duration."""
        return timedelta(seconds=self.quiet_seconds)

    @property
    def longest_wait(self) -> timedelta:
        """``longest_wait_seconds`` as a duration."""
        return timedelta(seconds=self.longest_wait_seconds)

    @property
    def lease(self) -> timedelta:
        """``lease_seconds`` as a duration."""
        return timedelta(seconds=self.lease_seconds)

    @property
    def decoding_limits(self) -> DecodingLimits:
        """What reading one file may take."""
        return DecodingLimits(self.decode_time_limit_seconds, self.decode_memory_mib << 20)

    @property
    def give_up_after(self) -> timedelta:
        """``give_up_after_hours`` as a duration."""
        return timedelta(hours=self.give_up_after_hours)

    @property
    def keep_for(self) -> timedelta | None:
        """``keep_days`` as a duration."""
        return None if self.keep_days is None else timedelta(days=self.keep_days)

    @property
    def keep_bytes(self) -> int | None:
        """``keep_gib`` in bytes."""
        return None if self.keep_gib is None else int(self.keep_gib * (1 << 30))

    def prepare_home(self) -> None:
        """Make the home folder, readable by nobody else.

        Raises:
            SettingsError: the folder cannot be made or written.
        """
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as cause:
            raise SettingsError(
                f"{PREFIX}HOME: {self.home} cannot be made ({cause.strerror}); "
                "name a folder that this user may write"
            ) from cause
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise SettingsError(
                f"{PREFIX}HOME: {self.home} is not writable; name a folder that this user may write"
            )


def _driver(url: str) -> str:
    try:
        return make_url(url).drivername
    except ArgumentError:
        return ""
