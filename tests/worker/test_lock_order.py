"""Parts that work on one study at the same time wait for each other, and neither is thrown out."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from dicom_io.findings import ModelIdentity
from dicom_io.sender import RemoteAE, SendOutcome, send
from tests.worker.bench import Bench
from tests.worker.readings import chest_film
from tests.worker.storage_scp import storage_scp
from worker.database import Database
from worker.tables import DeliveryState, InferenceState

NEWER_MODEL = ModelIdentity("MultiMix", "0.2.0", "ab" * 32)
WAITS_FOR_STUDY = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND query LIKE '%studies%FOR UPDATE%'"
)


@pytest.mark.interop
def test_a_newer_model_supersedes_results_whose_sender_records_them_at_that_moment(
    postgres_url: str, tmp_path: Path
) -> None:
    database, watching = Database(postgres_url), Database(postgres_url)
    database.upgrade_to_head()
    sent, superseding = threading.Event(), threading.Event()

    def wait_until_the_sender_waits() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with watching.reading() as session:
                if session.scalar(WAITS_FOR_STUDY):
                    return
            time.sleep(0.05)
        raise TimeoutError("the sender did not come to wait for the study")

    def send_and_wait(paths: Sequence[Path], remote: RemoteAE) -> list[SendOutcome]:
        outcomes = send(paths, remote)
        sent.set()
        assert superseding.wait(60)
        return outcomes

    reader_thread = threading.current_thread()

    @event.listens_for(database.engine, "before_cursor_execute")
    def let_the_sender_record(_: Any, __: Any, statement: str, *___: Any) -> None:
        in_the_reader = threading.current_thread() is reader_thread and sent.is_set()
        if in_the_reader and "UPDATE deliveries" in statement and not superseding.is_set():
            # The reader holds the study now, and is about to change its deliveries.
            superseding.set()
            wait_until_the_sender_waits()

    with storage_scp() as (_, target), ThreadPoolExecutor(1) as pool:
        bench = Bench(database, tmp_path / "store", target)
        bench.receive(chest_film("1.2.3"))
        bench.reader().read_study(1)
        bench.receive(chest_film("1.2.3", 2))
        recorded = pool.submit(bench.sender(send_and_wait).deliver_to, 1)
        assert sent.wait(60)
        bench.reader(NEWER_MODEL).read_study(1)
        recorded.result(60)
        assert [delivery.state for delivery in bench.deliveries[:2]] == [
            DeliveryState.DELIVERED
        ] * 2
        assert {(i.state, i.attempts) for i in bench.inferences} == {(InferenceState.READ, 1)}
    watching.close()
    database.close()
