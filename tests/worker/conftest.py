"""Databases for the worker's tests: SQLite files, and PostgreSQL where it is installed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.postgres import new_database, running_cluster
from tests.worker.storage_scp import StorageScp, storage_scp
from worker.addresses import Target
from worker.database import Database
from worker.demo_pacs import StorageScpPacs
from worker.settings import PREFIX, Settings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(PREFIX) and variable != "MULTIMIX_REQUIRE_INTEROP":
            monkeypatch.delenv(variable)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    with running_cluster() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_cluster: str) -> str:
    return new_database(postgres_cluster)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def any_database(empty_database_url: str) -> Iterator[Database]:
    """A database of each kind with the current schema."""
    database = Database(empty_database_url)
    database.upgrade_to_head()
    yield database
    database.close()


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StorageScpPacs]:
    """A receiving PACS over a real socket, which keeps what it gets."""
    folder = tmp_path / "pacs"
    folder.mkdir()
    receiving = StorageScpPacs(folder)
    yield receiving
    receiving.stop()


@pytest.fixture
def scp_and_target() -> Iterator[tuple[StorageScp, Target]]:
    """A target that answers as a test tells it to."""
    with storage_scp() as running:
        yield running


@pytest.fixture
def scp(scp_and_target: tuple[StorageScp, Target]) -> StorageScp:
    return scp_and_target[0]


@pytest.fixture
def target(scp_and_target: tuple[StorageScp, Target]) -> Target:
    return scp_and_target[1]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    made.prepare_home()
    return made


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """SQLite with the current schema."""
    made = Database(settings.resolved_database_url)
    made.upgrade_to_head()
    yield made
    made.close()
