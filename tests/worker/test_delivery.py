"""Results reach their target once, whatever the target answers and whenever it comes back."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread

import pytest

from dicom_io.delivery_status import Disposition
from dicom_io.sender import RemoteAE, SendOutcome, send
from dicom_io.uids import ResultKind
from tests.worker.bench import ARCHIVE, PACS, Bench
from tests.worker.readings import chest_film
from tests.worker.storage_scp import StorageScp, storage_scp
from worker.addresses import Target
from worker.database import Database
from worker.peers import enter_targets
from worker.purging import purge_study
from worker.studies import StudyState
from worker.tables import DeliveryState, Event


@pytest.fixture
def bench(database: Database, tmp_path: Path, target: Target) -> Bench:
    return Bench(database, tmp_path / "store", target)


def read_one(bench: Bench, study_uid: str = "1.2.3", study_key: int = 1) -> None:
    bench.receive(chest_film(study_uid))
    bench.reader().read_study(study_key)


def states(bench: Bench) -> list[DeliveryState]:
    return [delivery.state for delivery in bench.deliveries]


def test_everything_due_goes_over_one_association_bit_for_bit(
    bench: Bench, scp: StorageScp
) -> None:
    read_one(bench, "1.2.3", 1)
    read_one(bench, "1.2.4", 2)
    bench.sender(send).deliver_to(1)
    assert scp.associations == 1
    sent = [r for r in bench.results if r.kind is not ResultKind.PRESENTATION_STATE]
    assert scp.uids == [r.sop_instance_uid for r in sent]
    for (_, received), result in zip(scp.received, sent, strict=True):
        assert received == bench.store.read_encoded_dataset(result.relative_path)
    assert states(bench) == [DeliveryState.DELIVERED] * 4
    assert {d.status for d in bench.deliveries} == {0x0000}
    assert [bench.study(key).state for key in (1, 2)] == [StudyState.DONE] * 2
    assert bench.peers[0].lease_token is None


def test_nothing_is_sent_a_second_time(bench: Bench, scp: StorageScp) -> None:
    read_one(bench)
    for _ in range(2):
        bench.sender(send).deliver_to(1)
    assert len(scp.received) == 2


def test_a_warning_counts_as_delivered_and_stays_visible(bench: Bench, scp: StorageScp) -> None:
    read_one(bench)
    scp.answer = lambda uid: 0xB000
    bench.sender(send).deliver_to(1)
    assert bench.study().state is StudyState.DONE
    assert {d.reason for d in bench.deliveries} == {
        "delivered, with a warning of the peer, status 0xB000"
    }


def test_out_of_resources_is_tried_again_after_a_growing_pause(
    bench: Bench, scp: StorageScp
) -> None:
    read_one(bench)
    scp.answer = lambda uid: 0xA700
    pauses = []
    for _ in range(6):
        bench.sender(send).deliver_to(1)
        due = max(d.next_attempt_at for d in bench.deliveries)
        pauses.append((due - bench.clock.now).total_seconds())
        bench.clock.now = due
    for number, pause in enumerate(pauses):
        assert 5 * 2**number / 2 <= pause <= 5 * 2**number
    assert {d.attempts for d in bench.deliveries} == {6}
    assert bench.study().state is StudyState.DELIVERING

    scp.answer = lambda uid: 0x0000
    bench.sender(send).deliver_to(1)
    assert bench.study().state is StudyState.DONE
    assert len(scp.received) == 2


def test_a_final_refusal_is_a_dead_letter_with_its_status(bench: Bench, scp: StorageScp) -> None:
    read_one(bench)
    refused = bench.results[0].sop_instance_uid
    scp.answer = lambda uid: 0xC000 if uid == refused else 0x0000
    bench.sender(send).deliver_to(1)
    assert states(bench) == [DeliveryState.FAILED, DeliveryState.DELIVERED]
    assert bench.deliveries[0].status == 0xC000
    study = bench.study()
    assert study.state is StudyState.FAILED
    assert study.reason is not None
    assert "1 x not sent to PACS: refused by the peer for good, status 0xC000" in study.reason


def test_a_result_that_changed_on_the_disk_is_not_sent(bench: Bench, scp: StorageScp) -> None:
    read_one(bench)
    path = bench.store.path_of(bench.results[0].relative_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    bench.sender(send).deliver_to(1)
    assert scp.uids == [bench.results[1].sop_instance_uid]
    assert states(bench) == [DeliveryState.FAILED, DeliveryState.DELIVERED]
    study = bench.study()
    assert study.state is StudyState.FAILED
    assert study.reason is not None
    assert "has changed" in study.reason
    assert "result damaged" in [event.kind for event in bench.all(Event)]


def test_a_target_that_is_down_for_hours_gets_everything_when_it_is_back(
    bench: Bench, scp: StorageScp
) -> None:
    port = bench.peers[0].port
    scp.stop()
    read_one(bench)
    end = bench.clock.now + timedelta(hours=6)
    calls = 0
    while bench.clock.now < end:
        bench.sender(send).deliver_to(1)
        due = bench.peers[0].next_attempt_at
        assert due is not None
        bench.clock.now = due
        calls += 1
    assert calls < 60, "the pauses grow"
    assert bench.peers[0].failures == calls
    assert "cannot be reached" in (bench.peers[0].last_failure or "")
    assert states(bench) == [DeliveryState.PENDING] * 2

    scp.start(port)
    bench.sender(send).deliver_to(1)
    assert (bench.peers[0].failures, bench.peers[0].next_attempt_at) == (0, None)
    assert bench.study().state is StudyState.DONE
    assert len(scp.received) == 2


def test_what_cannot_be_sent_for_days_is_set_aside(bench: Bench, scp: StorageScp) -> None:
    scp.stop()
    read_one(bench)
    bench.sender(send).deliver_to(1)
    bench.clock.forward(73 * 3600)
    bench.sender(send).deliver_to(1)
    assert states(bench) == [DeliveryState.FAILED] * 2
    assert bench.study().state is StudyState.FAILED


def test_a_target_that_does_not_know_us_is_asked_as_seldom_as_possible(
    database: Database, tmp_path: Path
) -> None:
    with storage_scp(calling=("SOMEONE",)) as (_, target):
        bench = Bench(database, tmp_path / "store", target)
        read_one(bench)
        bench.sender(send).deliver_to(1)
        peer = bench.peers[0]
        assert peer.next_attempt_at is not None
        assert (peer.next_attempt_at - bench.clock.now).total_seconds() >= 450
        assert "calling" in (peer.last_failure or "").lower()
        assert states(bench) == [DeliveryState.PENDING] * 2


def test_a_parked_target_is_told_of_once(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with storage_scp(calling=("SOMEONE",)) as (_, target):
        bench = Bench(database, tmp_path / "store", target)
        read_one(bench)
        for _ in range(4):
            bench.sender(send).deliver_to(1)
            bench.clock.now = bench.peers[0].next_attempt_at or bench.clock.now
        assert bench.peers[0].failures == 4
        told = [line for line in caplog.messages if "rejected the association" in line]
        assert len(told) == 1
        assert "calling ae title not recognised (we call ourselves MULTIMIX)" in told[0]
        unreachable = [e for e in bench.all(Event) if e.kind == "target unreachable"]
        assert [event.detail["reason"] for event in unreachable] == told


def test_a_slow_target_is_left_between_two_associations_and_the_rest_is_called_for(
    bench: Bench, scp: StorageScp
) -> None:
    for number in range(1, 5):
        read_one(bench, f"1.2.{number}", number)
    turns = 0
    while len(scp.received) < 8:
        bench.sender(send, slice_seconds=0).deliver_to(1)
        turns += 1
        assert len(scp.received) == 4 * turns, "one association each"
        assert bench.peers[0].lease_token is None
        bench.waker.senders.clear()
        bench.sweeper.sweep()
        assert bench.waker.senders == ([1] if turns == 1 else [])
    assert states(bench) == [DeliveryState.DELIVERED] * 8


def test_an_unforeseen_error_of_the_sender_leaves_a_reason_and_no_patient_and_is_tried_again(
    bench: Bench, scp: StorageScp
) -> None:
    def break_down(paths: Sequence[Path], remote: RemoteAE) -> list[SendOutcome]:
        raise KeyError("Doe^Jane")

    read_one(bench)
    bench.sender(break_down).deliver_to(1)
    assert {d.reason for d in bench.deliveries} == {"sending to PACS failed: internal, KeyError"}
    assert bench.peers[0].lease_token is None
    bench.clock.now = bench.peers[0].next_attempt_at or bench.clock.now
    bench.sender(send).deliver_to(1)
    assert bench.study().state is StudyState.DONE

    read_one(bench, "1.2.4", 2)
    bench.sender(break_down).deliver_to(1)
    bench.clock.forward(73 * 3600)
    bench.sender(break_down).deliver_to(1)
    assert bench.study(2).state is StudyState.FAILED
    assert "2 x not sent to PACS: sending to PACS failed" in (bench.study(2).reason or "")


def test_a_dead_target_does_not_keep_another_from_its_results(
    database: Database, tmp_path: Path
) -> None:
    dead = Target(name="DEAD", ae_title="DEAD", host="127.0.0.1", port=1)
    with storage_scp() as (scp, target):
        bench = Bench(database, tmp_path / "store", dead, target)
        read_one(bench)
        bench.sweeper.sweep()
        assert bench.waker.senders == [1, 2]
        bench.sender(send).deliver_to(1)
        bench.sender(send).deliver_to(2)
        assert len(scp.received) == 2
        assert bench.study().state is StudyState.DELIVERING
        bench.clock.forward(1)
        bench.sweeper.sweep()
        assert bench.waker.senders == [1, 2], "the dead one is left alone for now"


def test_an_attempt_is_counted_before_the_association_and_repeated_after_a_crash(
    bench: Bench, scp: StorageScp
) -> None:
    read_one(bench)

    class SenderKilled(BaseException):
        pass

    def send_and_die(paths: Sequence[Path], remote: RemoteAE) -> list[SendOutcome]:
        send(paths, remote)
        raise SenderKilled

    with pytest.raises(SenderKilled):
        bench.sender(send_and_die).deliver_to(1)
    assert {(d.state, d.attempts) for d in bench.deliveries} == {(DeliveryState.PENDING, 1)}
    bench.sender(send).deliver_to(1)
    assert len(scp.received) == 2, "not before its time"
    bench.clock.forward(15)
    bench.sender(send).deliver_to(1)
    assert bench.study().state is StudyState.DONE
    assert sorted(scp.uids[:2]) == sorted(scp.uids[2:]), "the same objects, never new ones"


def test_a_study_that_was_erased_meanwhile_takes_no_answer_from_its_neighbours(
    any_database: Database, tmp_path: Path, scp_and_target: tuple[StorageScp, Target]
) -> None:
    bench = Bench(any_database, tmp_path / "store", scp_and_target[1])
    read_one(bench, "1.2.3", 1)
    read_one(bench, "1.2.4", 2)
    lease = timedelta(hours=1)  # so long that no sign of life falls into the test

    def send_and_hang(paths: Sequence[Path], remote: RemoteAE) -> list[SendOutcome]:
        outcomes = send(paths, remote)
        bench.clock.now += lease
        purge_study(bench.database, bench.store, "1.2.3", "miller", bench.clock)
        return outcomes

    bench.sender(send_and_hang, lease=lease).deliver_to(1)
    assert [bench.study(key).state for key in (1, 2)] == [StudyState.REMOVED, StudyState.DONE]
    assert states(bench) == [DeliveryState.DELIVERED] * 2


def test_one_target_is_called_by_one_sender_at_a_time(bench: Bench, scp: StorageScp) -> None:
    for number in range(1, 5):
        read_one(bench, f"1.2.{number}", number)
    start = Barrier(4)

    def deliver() -> None:
        start.wait()
        bench.sender(send).deliver_to(1)

    threads = [Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scp.received) == len(set(scp.uids)) == 8


def test_a_changed_address_takes_along_what_waits(
    database: Database, tmp_path: Path, scp: StorageScp, scp_and_target: tuple[StorageScp, Target]
) -> None:
    moved = scp_and_target[1]
    bench = Bench(database, tmp_path / "store", moved.model_copy(update={"port": 1}))
    read_one(bench)
    bench.sender(send).deliver_to(1)
    with database.writing() as session:
        enter_targets(session, [moved])
    bench.clock.forward(5)
    bench.sender(send).deliver_to(1)
    assert len(scp.received) == 2


def test_two_targets_that_finish_at_the_same_time_close_the_study(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path / "store", PACS, ARCHIVE)
    read_one(bench)
    both = Barrier(2)

    def send_together(paths: Sequence[Path], remote: RemoteAE) -> list[SendOutcome]:
        both.wait()
        return [SendOutcome("", 0, Disposition.DELIVERED) for _ in paths]

    threads = [Thread(target=bench.sender(send_together).deliver_to, args=(key,)) for key in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.study().state is StudyState.DONE
