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

from dicom_io.errors import SettingsError
from model import SHIPPED_MODEL
from worker.addresses import AllowedPeer, Target, check_ae_title, split_list

PREFIX: Final = "MULTIMIX_"


class Settings(BaseSettings):
    """Every setting of the node; frozen.

    Attributes:
        home: folder of everything that the node writes, mode 0700.
        database_url: SQLAlchemy URL; None is SQLite in ``home``.
        broker_url: URL of a Redis or Valkey server; None is the embedded Valkey.
        broker_port: TCP port of the embedded Valkey; 0 takes a free one.
        listener_host: address on which associations are accepted.
        listener_port: TCP port of the listener.
        ae_title: the node's own AE title.
        allowed_peers: who may send; empty admits everyone who can reach the listener.
        low_water_mark_mib: free disk space, in MiB, below which no instance is taken.
        quiet_seconds: pause after the last association of a study before it is read.
        longest_wait_seconds: a study is read this long after its first instance at the latest.
        targets: where results are sent.
        model_directory: weights and card of the model.
        device: torch device of the model.
        reader_processes: processes that read films; one a device.
        sender_processes: processes that send results.
        lease_seconds: a study whose worker gave no sign of life for so long is taken back.
        most_attempts: how often a film that ends its worker is tried.
        retry_seconds: pause before something that failed is tried again; doubles each time.
        longest_retry_seconds: longest such pause.
        reading_time_limit_seconds: a reading task that runs longer is killed.
        visibility_timeout_seconds: the broker hands out a task again after this long.
        give_up_after_hours: a result that could not be sent for so long is set aside.
        send_batch: most objects that go over one association.
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
    low_water_mark_mib: int = Field(default=512, ge=0)

    quiet_seconds: float = Field(default=3.0, ge=0, le=3600)
    longest_wait_seconds: float = Field(default=600.0, gt=0)
    targets: Annotated[tuple[Target, ...], NoDecode] = ()

    model_directory: Path = SHIPPED_MODEL
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    reader_processes: int = Field(default=1, ge=1, le=64)
    sender_processes: int = Field(default=2, ge=1, le=64)

    lease_seconds: float = Field(default=15.0, ge=1)
    most_attempts: int = Field(default=3, ge=1)
    retry_seconds: float = Field(default=5.0, gt=0)
    longest_retry_seconds: float = Field(default=900.0, gt=0)
    reading_time_limit_seconds: int = Field(default=100, ge=1)
    visibility_timeout_seconds: int = Field(default=120, ge=2)
    give_up_after_hours: float = Field(default=72.0, gt=0)
    send_batch: int = Field(default=50, ge=1)

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

    @field_validator("home", "model_directory")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("ae_title")
    @classmethod
    def _valid_ae_title(cls, value: str) -> str:
        return check_ae_title(value)

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
        return value or None

    @model_validator(mode="after")
    def _settings_that_belong_together(self) -> "Settings":
        # A task that outlives the visibility timeout is handed out twice while it still runs.
        if self.reading_time_limit_seconds >= self.visibility_timeout_seconds:
            raise ValueError(
                "reading_time_limit_seconds must be below visibility_timeout_seconds, else the "
                "broker hands out tasks that still run; lower the first or raise the second"
            )
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError(
                "targets must have different names; write NAME=AE_TITLE@HOST:PORT to name them"
            )
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
    def give_up_after(self) -> timedelta:
        """``give_up_after_hours`` as a duration."""
        return timedelta(hours=self.give_up_after_hours)

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
