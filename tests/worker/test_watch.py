"""A part that is there but does nothing is noticed; one that has much to do is left alone."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.worker.bench import PACS, Bench
from tests.worker.readings import chest_film
from tests.worker.test_embedded_broker import running_broker
from worker.database import Database
from worker.embedded_broker import broker_url
from worker.queueing import READING_QUEUE
from worker.settings import Settings
from worker.signs_of_life import LISTENER, opening, show_sign_of_life
from worker.study_steps import claim
from worker.watch import WATCHED_PARTS, NodeWatch


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(database, tmp_path / "store", PACS)


@pytest.fixture
def watch(bench: Bench, settings: Settings) -> Iterator[NodeWatch]:
    with running_broker(settings):
        yield NodeWatch(bench.database, broker_url(settings), bench.clock.now, now=bench.clock)


def let_time_pass(
    bench: Bench,
    watch: NodeWatch,
    seconds: int,
    *silent: str,
    changed: Mapping[str, datetime] | None = None,
) -> list[str]:
    """All parts but some show that they work, every few seconds; what the watch says at the end."""
    for _ in range(seconds // 5):
        bench.clock.forward(5)
        for part in WATCHED_PARTS - set(silent):
            show_sign_of_life(bench.database, part, bench.clock.now)
        found = watch.silent_parts(changed or {})
        if found:
            return found
    return []


def test_a_node_is_ready_when_every_part_has_shown_that_it_works(
    bench: Bench, watch: NodeWatch
) -> None:
    for part in WATCHED_PARTS:
        assert not watch.is_ready()
        show_sign_of_life(bench.database, part, bench.clock.now)
    assert watch.is_ready()
    restarted = NodeWatch(watch.database, watch.broker_url, bench.clock.forward(1))
    assert not restarted.is_ready(), "signs of an earlier run do not count"


def test_a_worker_that_takes_no_tasks_is_noticed_soon(bench: Bench, watch: NodeWatch) -> None:
    assert let_time_pass(bench, watch, 60) == []
    assert let_time_pass(bench, watch, 10, READING_QUEUE) == []
    assert let_time_pass(bench, watch, 10, READING_QUEUE) == [READING_QUEUE]


def test_a_listener_is_given_longer_since_its_end_aborts_associations(
    bench: Bench, watch: NodeWatch
) -> None:
    assert let_time_pass(bench, watch, 60) == []
    assert let_time_pass(bench, watch, 40, LISTENER) == []
    assert let_time_pass(bench, watch, 10, LISTENER) == [LISTENER]


def test_a_new_process_gets_its_time_to_start_and_no_more(bench: Bench, watch: NodeWatch) -> None:
    assert let_time_pass(bench, watch, 60) == []
    changed = {READING_QUEUE: bench.clock.forward(1)}
    assert let_time_pass(bench, watch, 55, READING_QUEUE, changed=changed) == []
    assert let_time_pass(bench, watch, 10, READING_QUEUE, changed=changed) == [READING_QUEUE]
    changed = {READING_QUEUE: bench.clock.forward(1)}
    assert let_time_pass(bench, watch, 10, changed=changed) == [], "it works already"
    assert let_time_pass(bench, watch, 15, READING_QUEUE, changed=changed) == [READING_QUEUE]


def test_a_worker_that_replaces_a_process_has_time_to_open_it(
    bench: Bench, watch: NodeWatch
) -> None:
    assert let_time_pass(bench, watch, 60) == []
    show_sign_of_life(bench.database, opening(READING_QUEUE), bench.clock.forward(1))
    assert let_time_pass(bench, watch, 55, READING_QUEUE) == []
    assert let_time_pass(bench, watch, 5, READING_QUEUE) == [READING_QUEUE]
    show_sign_of_life(bench.database, opening(READING_QUEUE), bench.clock.forward(1))
    assert let_time_pass(bench, watch, 5) == [], "it takes tasks again"
    assert let_time_pass(bench, watch, 15, READING_QUEUE) == [READING_QUEUE]


def test_a_process_that_never_starts_in_time_gets_twice_as_long_each_time(
    bench: Bench, watch: NodeWatch
) -> None:
    assert let_time_pass(bench, watch, 60) == []
    for seconds in (60, 120, 240):
        changed = {READING_QUEUE: bench.clock.forward(1)}
        assert let_time_pass(bench, watch, seconds - 5, READING_QUEUE, changed=changed) == []
        assert let_time_pass(bench, watch, 5, READING_QUEUE, changed=changed) == [READING_QUEUE]
    changed = {READING_QUEUE: bench.clock.forward(1)}
    assert let_time_pass(bench, watch, 10, changed=changed) == [], "it has started"
    changed = {READING_QUEUE: bench.clock.forward(1)}
    assert let_time_pass(bench, watch, 55, READING_QUEUE, changed=changed) == []
    assert let_time_pass(bench, watch, 5, READING_QUEUE, changed=changed) == [READING_QUEUE]


def test_a_worker_that_holds_a_lease_is_at_work(bench: Bench, watch: NodeWatch) -> None:
    assert let_time_pass(bench, watch, 5) == []
    bench.receive(chest_film("1.2.3"))
    with bench.database.writing() as session:
        assert claim(session, 1, bench.clock.now, timedelta(seconds=100)) is not None
    assert let_time_pass(bench, watch, 95, READING_QUEUE) == []
    assert let_time_pass(bench, watch, 20, READING_QUEUE) == [READING_QUEUE]


def test_a_worker_whose_long_task_was_ended_has_time_to_replace_the_process(
    bench: Bench, watch: NodeWatch
) -> None:
    assert let_time_pass(bench, watch, 5) == []
    bench.receive(chest_film("1.2.3"))
    with bench.database.writing() as session:
        assert claim(session, 1, bench.clock.now, timedelta(seconds=100)) is not None
    # The lease ends with the process, a moment before the next one shows that it opens.
    assert let_time_pass(bench, watch, 105, READING_QUEUE) == []
    show_sign_of_life(bench.database, opening(READING_QUEUE), bench.clock.now)
    assert let_time_pass(bench, watch, 55, READING_QUEUE) == []


def test_while_the_broker_is_away_no_worker_is_blamed(bench: Bench, settings: Settings) -> None:
    watch = NodeWatch(bench.database, "redis://127.0.0.1:1/0", bench.clock.now, now=bench.clock)
    assert let_time_pass(bench, watch, 5) == []
    assert let_time_pass(bench, watch, 600, READING_QUEUE) == []
    with running_broker(settings):
        watch.broker_url = broker_url(settings)
        assert let_time_pass(bench, watch, 15, READING_QUEUE) == []
        assert let_time_pass(bench, watch, 10, READING_QUEUE) == [READING_QUEUE]
