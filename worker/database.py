"""Engine, transactions and schema of the node's database: SQLite by default, or PostgreSQL."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session

from dicom_io.errors import SettingsError
from worker.backoff import Backoff

_LOG = logging.getLogger(__name__)

PROJECT_ROOT: Final = Path(__file__).parent.parent
BUSY_TIMEOUT_MS: Final = 15_000
CONNECT_TIMEOUT_SECONDS: Final = 5
# A server that vanishes without a word, with its machine or its network, is given up after 25 s.
_NOTICE_A_DEAD_SERVER: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_PAUSES: Final = Backoff(first_seconds=0.5, longest_seconds=5.0)


class Database:
    """Transactions on one database; safe to share between threads, not across a fork.

    Args:
        url: SQLAlchemy URL of SQLite or PostgreSQL (psycopg).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _create_engine(url)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction that may change rows; committed at the end, else rolled back."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that changes nothing, and waits for no writer on SQLite."""
        engine = self.engine.execution_options(multimix_read_only=True)
        with Session(engine, expire_on_commit=False) as session:
            yield session

    def wait_until_reachable(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """Wait, with growing pauses, until the database server answers; says once that it does not.

        Args:
            sleep: waits for so many seconds.
        """
        failures = 0
        while True:
            try:
                with self.engine.connect():
                    return
            except OperationalError as cause:
                failures += 1
                if failures == 1:
                    _LOG.warning("waiting: %s", database_problem(cause))
                sleep(_PAUSES.pause(failures).total_seconds())

    def upgrade_to_head(self) -> None:
        """Create or update the schema.

        Raises:
            SettingsError: a later release made it.
        """
        self._require_known_schema()
        command.upgrade(alembic_configuration(self.url), "head")

    def require_current_schema(self) -> None:
        """Refuse to work on a database of another version.

        Raises:
            SettingsError: the schema is missing or not the one of this program.
        """
        found = self._require_known_schema()
        wanted = _revisions(self.url).get_current_head()
        if found != wanted:
            raise SettingsError(
                f"the database has schema {found or 'none'}, this program needs {wanted}; "
                "run `python -m worker migrate`"
            )

    def _require_known_schema(self) -> str | None:
        """The revision of the schema, None where there is none yet; refuses one of the future."""
        with self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in _revisions(self.url).walk_revisions()}
        if found is not None and found not in known:
            raise SettingsError(
                f"the database has schema {found}, which a later release made; install that "
                "release again, or restore the backup from before it"
            )
        return found

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def insert_if_absent(session: Session, table: type[DeclarativeBase], **values: Any) -> bool:
    """Insert a row unless a unique constraint says that it is there, also when two do so at once.

    Returns:
        Whether the row was inserted.
    """
    dialect = session.get_bind().dialect.name
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    statement = insert(table).values(**values).on_conflict_do_nothing()
    return session.connection().execute(statement).rowcount == 1


def database_problem(problem: SQLAlchemyError) -> str:
    """What went wrong with the database, in one line; what it says of rows is left out."""
    if isinstance(problem, OperationalError) and problem.orig is not None:
        said = str(problem.orig).strip().splitlines()[0]
        return f"the database cannot be used: {said}"
    return f"the database failed ({type(problem).__name__})"


def _revisions(url: str) -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_configuration(url))


def alembic_configuration(url: str) -> Config:
    """Alembic's configuration for one database, independent of the current folder."""
    configuration = Config(PROJECT_ROOT / "alembic.ini")
    configuration.set_main_option("script_location", str(PROJECT_ROOT / "migrations"))
    configuration.attributes["database_url"] = url
    return configuration


def _create_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() == "sqlite":
        return _create_sqlite_engine(url)
    engine = create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,  # an error goes to the log, which outlives findings
        connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS, **_NOTICE_A_DEAD_SERVER},
    )

    @event.listens_for(engine, "connect")
    def make_commits_durable(connection: psycopg.Connection, _: Any) -> None:
        # A server may be set to confirm what a power cut still takes back; success is answered on
        # a commit, so here it is not. What is stricter than that stays.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()

    return engine


def _create_sqlite_engine(url: str) -> Engine:
    """SQLite that keeps what it committed through a power cut and lets readers and writers work."""
    engine = create_engine(
        url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}
    )

    @event.listens_for(engine, "connect")
    def set_up_connection(connection: sqlite3.Connection, _: Any) -> None:
        # The driver must not open transactions by itself; `begin` below says which kind.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that starts as a reader and turns writer fails where two meet; one that
        # takes the write lock at once waits for its turn.
        read_only = connection.get_execution_options().get("multimix_read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
