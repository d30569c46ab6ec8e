"""While the database is away nothing is acknowledged, and when it is back work goes on."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.storage import InstanceStore
from tests.chaos.servers import PostgresServer, postgres_server
from tests.dicom_io.peers import association_with, encoded, radiograph, store_bytes
from worker.database import Database
from worker.intake import DatabaseIntake
from worker.tables import Association, Instance

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
TRANSIENT = 2


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.mark.interop
def test_the_listener_asks_senders_to_try_again_until_the_database_is_back(
    server: PostgresServer, tmp_path: Path
) -> None:
    database = Database(server.url)
    database.upgrade_to_head()
    intake = DatabaseIntake(database, "listener", timedelta(), timedelta(seconds=60))
    store = InstanceStore(tmp_path / "store")
    film = encoded(radiograph())
    with Listener(ListenerConfiguration("MULTIMIX"), store, intake) as listener:
        with association_with(listener) as association:
            server.stop()
            assert store_bytes(association, film) == OUT_OF_RESOURCES
            with association_with(listener) as refused:
                assert refused.is_rejected
                assert refused.acceptor.primitive.result == TRANSIENT
            waiting = threading.Thread(target=database.wait_until_reachable)
            waiting.start()
            server.start()
            waiting.join(timeout=60)
            assert not waiting.is_alive()
            assert store_bytes(association, film) == SUCCESS
        with association_with(listener) as association:
            assert association.is_established
    with database.reading() as session:
        assert session.scalars(select(Instance.sop_instance_uid)).all() == ["2.25.1000001"]
        assert all(session.scalars(select(Association.ended_at)))
    database.close()


def test_the_pauses_of_who_waits_for_the_database_grow_to_a_limit() -> None:
    pauses: list[float] = []

    class EnoughError(Exception):
        pass

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            raise EnoughError

    with pytest.raises(EnoughError):
        Database("postgresql+psycopg://nobody@127.0.0.1:1/none").wait_until_reachable(sleep)
    assert pauses[0] <= 0.5
    assert all(2.5 <= pause <= 5 for pause in pauses[5:])


@pytest.mark.interop
def test_a_server_that_vanishes_is_noticed_and_commits_survive_its_power_cut(
    postgres_url: str,
) -> None:
    database = Database(postgres_url)
    name = database.engine.url.database
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        connection.commit()
    database.close()
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        parameters = connection.connection.dbapi_connection.info.get_parameters()
    assert int(parameters["tcp_user_timeout"]) <= 30_000
    assert int(parameters["keepalives_idle"]) <= 10
    database.close()
