"""Wake-ups over a real broker: a key and nothing else, and no study lost with the broker."""

import base64
import json
import logging
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.worker.test_embedded_broker import running_broker
from worker.embedded_broker import broker_url
from worker.queueing import DELIVERY_QUEUE, READING_QUEUE, Waker, create_app
from worker.settings import Settings


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with running_broker(settings), Redis.from_url(broker_url(settings)) as client:
        yield client


@pytest.fixture
def waker(settings: Settings, redis: Redis) -> Waker:
    return Waker(create_app(settings, broker_url(settings)))


def test_a_message_is_json_and_carries_only_the_key(waker: Waker, redis: Redis) -> None:
    assert waker.wake_reader(17)
    assert waker.wake_sender(3)
    for queue, key in ((READING_QUEUE, 17), (DELIVERY_QUEUE, 3)):
        (raw,) = redis.lrange(queue, 0, -1)
        message = json.loads(raw)
        assert message["content-type"] == "application/json"
        arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
        assert (arguments, keywords) == ([key], {})
        assert message["headers"]["argsrepr"] == ""


def test_the_length_of_a_queue_is_what_waits_in_it(waker: Waker) -> None:
    assert waker.waiting(READING_QUEUE) == 0
    for key in range(3):
        waker.wake_reader(key)
    assert (waker.waiting(READING_QUEUE), waker.waiting(DELIVERY_QUEUE)) == (3, 0)


def test_a_broker_that_is_away_is_told_once_and_used_again_when_it_is_back(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "worker.queueing")
    with running_broker(settings):
        waker = Waker(create_app(settings, broker_url(settings)))
        assert waker.wake_reader(1)
    for _ in range(3):
        assert waker.waiting(READING_QUEUE) is None
        assert not waker.wake_reader(1)
        assert not waker.ask_for_sign_of_life(READING_QUEUE)
    with running_broker(settings):
        assert waker.wake_reader(2)
        assert waker.waiting(READING_QUEUE) is not None
    messages = [record.getMessage() for record in caplog.records]
    assert [m.partition(" (")[0] for m in messages] == ["the broker is away", "the broker is back"]
