"""A study ends when nothing of it is on its way any more, and as what is known of it by then."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from dicom_io.errors import ImageRejected, RejectionReason
from dicom_io.findings import ModelIdentity
from dicom_io.sender import send
from tests.dicom_io.sources import MODEL
from tests.worker.bench import Bench
from tests.worker.readings import DrawnReading, chest_film
from tests.worker.storage_scp import StorageScp, storage_scp
from worker.database import Database
from worker.studies import StudyState
from worker.tables import UNSETTLED, DeliveryState

NEWER_MODEL = ModelIdentity("MultiMix", "0.2.0", "ab" * 32)
EVENTS = ("film", "lateral", "read", "refuse", "fail", "taken", "busy", "refused", "days later")
UNLIKE = RejectionReason.UNLIKE_TRAINING.value


def refuse(dataset: Dataset) -> DrawnReading:
    raise ImageRejected(RejectionReason.UNLIKE_TRAINING)


def fail(dataset: Dataset) -> DrawnReading:
    raise MemoryError


def read_while_the_target_is_busy(bench: Bench, scp: StorageScp) -> None:
    """A study whose results wait, and which another film joins, as a lateral does."""
    scp.answer = lambda uid: 0xA700
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    bench.sender(send).deliver_to(1)
    assert states(bench) == [DeliveryState.PENDING] * 2
    bench.receive(chest_film("1.2.3", 2, ViewPosition="LL"))


def states(bench: Bench) -> list[DeliveryState]:
    return [delivery.state for delivery in bench.deliveries]


def test_a_model_that_refuses_a_study_leaves_it_open_while_older_results_wait(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (scp, target):
        bench = Bench(any_database, tmp_path / "store", target)
        read_while_the_target_is_busy(bench, scp)
        assert bench.reader(NEWER_MODEL, read=refuse).read_study(1) == [1]
        assert bench.study().state is StudyState.DELIVERING

        scp.answer = lambda uid: 0x0000
        bench.clock.forward(3600)
        bench.sender(send).deliver_to(1)
        assert states(bench) == [DeliveryState.DELIVERED] * 2
        study = bench.study()
        assert (study.state, study.reason) == (StudyState.REJECTED, UNLIKE)
        assert study.finished_at == bench.clock.now


def test_a_refused_study_whose_older_results_cannot_be_sent_has_failed(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (scp, target):
        bench = Bench(any_database, tmp_path / "store", target)
        read_while_the_target_is_busy(bench, scp)
        bench.reader(NEWER_MODEL, read=refuse).read_study(1)
        bench.clock.forward(73 * 3600)
        bench.sender(send).deliver_to(1)
        assert states(bench) == [DeliveryState.FAILED] * 2
        study = bench.study()
        assert study.state is StudyState.FAILED
        assert "not sent to PACS" in (study.reason or "")


@pytest.mark.parametrize(
    ("answer", "in_the_reason"),
    [(0x0000, ["MemoryError"]), (0xC000, ["MemoryError", "2 x not sent to PACS"])],
)
def test_a_study_that_cannot_be_read_has_failed_whatever_becomes_of_older_results(
    database: Database, tmp_path: Path, answer: int, in_the_reason: Sequence[str]
) -> None:
    with storage_scp() as (scp, target):
        bench = Bench(database, tmp_path / "store", target)
        read_while_the_target_is_busy(bench, scp)
        bench.reader(NEWER_MODEL, read=fail, most_attempts=1).read_study(1)
        assert bench.study().state is StudyState.DELIVERING
        scp.answer = lambda uid: answer
        bench.clock.forward(3600)
        bench.sender(send).deliver_to(1)
        study = bench.study()
        assert study.state is StudyState.FAILED
        assert all(part in (study.reason or "") for part in in_the_reason)


def test_a_dead_letter_of_an_older_model_is_not_forgotten_when_the_next_refuses(
    database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (scp, target):
        bench = Bench(database, tmp_path / "store", target)
        scp.answer = lambda uid: 0xC000
        bench.receive(chest_film("1.2.3"))
        bench.reader().read_study(1)
        bench.sender(send).deliver_to(1)
        assert bench.study().state is StudyState.FAILED
        bench.receive(chest_film("1.2.3", 2))
        bench.reader(NEWER_MODEL, read=refuse).read_study(1)
        study = bench.study()
        assert study.state is StudyState.FAILED
        assert "2 x not sent to PACS" in (study.reason or "")


def test_nothing_of_a_done_or_rejected_study_is_on_its_way_whatever_happens(
    database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (scp, target):
        bench = Bench(database, tmp_path / "store", target)
        studies = itertools.count(1)

        def happen(event: str, study_key: int, film: int) -> None:
            if event in ("film", "lateral"):
                view = {"ViewPosition": "LL"} if event == "lateral" else {}
                bench.receive(chest_film(f"1.2.{study_key}", film, **view))
            elif event in ("read", "refuse", "fail"):
                read = {"read": None, "refuse": refuse, "fail": fail}[event]
                model = MODEL if event == "read" else NEWER_MODEL
                bench.reader(model, read=read, most_attempts=1).read_study(study_key)
            elif event == "days later":
                bench.clock.forward(73 * 3600)
                bench.sweeper.sweep()
            else:
                status = {"taken": 0x0000, "busy": 0xA700, "refused": 0xC000}[event]
                scp.answer = lambda uid: status
                bench.clock.forward(900)
                bench.sender(send).deliver_to(1)

        @settings(max_examples=20, deadline=None)
        @given(st.lists(st.sampled_from(EVENTS), min_size=2, max_size=8))
        def live(events: list[str]) -> None:
            study_key = next(studies)
            happen("taken", study_key, 0)
            for film, event in enumerate(["film", "read", *events], start=1):
                happen(event, study_key, film)
                assert not closed_too_early(bench, study_key), event

        live()


def closed_too_early(bench: Bench, study_key: int) -> bool:
    """Whether a study is done or rejected while a result of it is on its way."""
    open_deliveries = [
        one for one in bench.deliveries if one.study_key == study_key and one.state in UNSETTLED
    ]
    closed = bench.study(study_key).state in (StudyState.DONE, StudyState.REJECTED)
    return closed and bool(open_deliveries)
