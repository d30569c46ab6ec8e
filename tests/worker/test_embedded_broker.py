"""The embedded Valkey: private, persistent, and found by the node's parts."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from dicom_io.errors import SettingsError
from tests.worker.nodes import waited_for
from worker.embedded_broker import broker_url, prepare_embedded_broker
from worker.settings import Settings


def answers(url: str) -> bool:
    try:
        with Redis.from_url(url) as client:
            return bool(client.ping())
    except RedisError:
        return False


@contextmanager
def running_broker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(prepare_embedded_broker(settings))
    try:
        url = broker_url(settings)
        waited_for(lambda: answers(url), "the embedded broker")
        yield process
    finally:
        process.kill()
        process.wait()


def test_it_is_private_to_the_node_s_user_and_needs_its_password(settings: Settings) -> None:
    with running_broker(settings):
        folder = settings.broker_directory
        assert (folder / "url").stat().st_mode & 0o777 == 0o600
        assert (folder / "valkey.conf").stat().st_mode & 0o777 == 0o600
        url = broker_url(settings)
        assert url.startswith("redis://:")
        without_password = url.partition("@")[2]
        with (
            Redis.from_url(f"redis://{without_password}") as client,
            pytest.raises(AuthenticationError),
        ):
            client.ping()


def test_what_it_holds_survives_its_death_at_the_same_address(settings: Settings) -> None:
    with running_broker(settings) as process:
        url = broker_url(settings)
        with Redis.from_url(url) as client:
            client.lpush("reading", "a wake-up")
            client.execute_command("WAITAOF", 1, 0, 5000)
        process.kill()
        process.wait()
    with running_broker(settings):
        assert broker_url(settings) == url
        with Redis.from_url(url) as client:
            assert client.lrange("reading", 0, -1) == [b"a wake-up"]


def test_without_any_broker_the_message_says_how_to_get_one(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="MULTIMIX_BROKER_URL=redis://"):
        broker_url(settings)


def test_a_broker_of_the_settings_needs_no_embedded_one(tmp_path: Path) -> None:
    url = "redis://broker:6379/0"
    assert broker_url(Settings(home=tmp_path, broker_url=url)) == url
