"""Each target gets what its profile says, or what stands in for it, and nothing twice."""

from pathlib import Path

import pytest

from dicom_io.findings import ModelIdentity
from dicom_io.result_profile import profile
from dicom_io.sender import send
from dicom_io.uids import STORAGE_CLASSES, ResultKind, result_uid
from tests.dicom_io.sources import MODEL
from tests.worker.bench import ARCHIVE, PACS, Bench
from tests.worker.readings import chest_film
from tests.worker.storage_scp import StorageScp, storage_scp
from worker.addresses import Target
from worker.database import Database
from worker.peers import enter_targets
from worker.requeueing import requeue_study
from worker.status import StatusQuery, read_status
from worker.studies import StudyState
from worker.tables import DeliveryState, Event

NEWER_MODEL = ModelIdentity("MultiMix", "0.2.0", "ab" * 32)
SEG, SC = ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE
GSPS, SR = ResultKind.PRESENTATION_STATE, ResultKind.REPORT
LABEL_MAP = ResultKind.LABEL_MAP_SEGMENTATION


def classes(names: str) -> tuple[str, ...]:
    """The storage classes that a target accepts; of none of ours, that of CT images."""
    return tuple(
        STORAGE_CLASSES[kind] for kind in (profile(names.split("+")) if names else ())
    ) or ("1.2.840.10008.5.1.4.1.1.2",)


def read_one(bench: Bench) -> None:
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)


def kinds_received(bench: Bench, scp: StorageScp) -> list[ResultKind]:
    kinds = {result.sop_instance_uid: result.kind for result in bench.results}
    return [kinds[uid] for uid in scp.uids]


def states(bench: Bench) -> dict[ResultKind, DeliveryState]:
    kinds = {result.result_key: result.kind for result in bench.results}
    return {kinds[delivery.result_key]: delivery.state for delivery in bench.deliveries}


def test_each_target_gets_its_own_profile(any_database: Database, tmp_path: Path) -> None:
    viewer = PACS.model_copy(update={"results": profile(["seg", "sr"])})
    old_archive = ARCHIVE.model_copy(update={"results": profile(["gsps"])})
    bench = Bench(any_database, tmp_path / "store", viewer, old_archive)
    read_one(bench)
    assert {r.kind for r in bench.results} == {SEG, SR, GSPS, SC}
    kinds = {result.result_key: result.kind for result in bench.results}
    called_for = {(d.peer_key, kinds[d.result_key]) for d in bench.deliveries}
    assert called_for == {(1, SEG), (1, SR), (2, GSPS)}


@pytest.mark.parametrize(
    ("wanted", "accepted", "received"),
    [
        ("seg", "gsps+sc", [GSPS]),
        ("seg", "sc", [SC]),
        ("seg+sc", "gsps+sc", [SC, GSPS]),
        ("seg+sr", "sc", [SC]),
        ("labelmap", "seg", [SEG]),
        ("labelmap+seg", "sc", [SC]),
        ("gsps+sr", "gsps", [GSPS]),
        ("seg+labelmap+sc+gsps+sr", "seg+labelmap+sc+gsps+sr", [SEG, LABEL_MAP, SC, GSPS, SR]),
    ],
)
def test_what_a_target_refuses_is_replaced_by_what_it_takes(
    database: Database, tmp_path: Path, wanted: str, accepted: str, received: list[ResultKind]
) -> None:
    with storage_scp(classes(accepted), results=profile(wanted.split("+"))) as (scp, target):
        bench = Bench(database, tmp_path / "store", target)
        read_one(bench)
        for _ in range(2):
            bench.sender(send).deliver_to(1)
        assert kinds_received(bench, scp) == received
    assert bench.study().state is StudyState.DONE
    delivered = {k for k, state in states(bench).items() if state is DeliveryState.DELIVERED}
    assert delivered == set(received)


@pytest.mark.parametrize("status", [0x0122, 0xA801])
def test_a_class_that_is_refused_by_status_only_is_replaced_too(
    database: Database, tmp_path: Path, status: int
) -> None:
    with storage_scp(results=profile(["seg"])) as (scp, target):
        bench = Bench(database, tmp_path / "store", target)
        read_one(bench)
        kinds = {result.sop_instance_uid: result.kind for result in bench.results}
        scp.answer = lambda uid: 0x0000 if kinds[uid] is SC else status
        for _ in range(3):
            bench.sender(send).deliver_to(1)
        assert kinds_received(bench, scp) == [SC]
    assert bench.study().state is StudyState.DONE


def test_a_substitution_is_told_in_status_and_events(database: Database, tmp_path: Path) -> None:
    with storage_scp(classes("sc"), results=profile(["seg"])) as (_, target):
        bench = Bench(database, tmp_path / "store", target)
        read_one(bench)
        bench.sender(send).deliver_to(1)
    assert states(bench) == {
        SEG: DeliveryState.SUBSTITUTED,
        GSPS: DeliveryState.SUBSTITUTED,
        SC: DeliveryState.DELIVERED,
    }
    with database.reading() as session:
        status = read_status(session, bench.store, StatusQuery())
    told = {
        result["kind"]: result["deliveries"]
        for result in status["studies"][0]["instances"][0]["results"]
    }
    [segmentation], [capture] = told["segmentation"], told["secondary capture"]
    assert segmentation["state"] == "substituted"
    assert segmentation["reason"].startswith(
        "presentation state is sent instead; the peer does not"
    )
    assert capture["instead_of"] == "presentation state"
    events = [e for e in bench.all(Event) if e.kind.startswith("result ")]
    assert [e.kind for e in events] == ["result substituted", "result substituted", "result sent"]
    assert events[-1].detail["instead_of"] == "presentation state"


def test_a_target_that_takes_no_kind_of_result_fails_the_study(
    database: Database, tmp_path: Path
) -> None:
    with storage_scp(classes("")) as (_, target):
        bench = Bench(database, tmp_path / "store", target)
        read_one(bench)
        bench.sender(send).deliver_to(1)
    assert set(states(bench).values()) == {DeliveryState.NOT_TAKEN}
    study = bench.study()
    assert (study.state, study.reason) == (
        StudyState.FAILED,
        "PACS takes none of the kinds of result",
    )


def test_a_target_that_learnt_to_take_segmentations_gets_them_when_requeued(
    database: Database, tmp_path: Path
) -> None:
    wanted = profile(["seg"])
    with storage_scp(classes(""), results=wanted) as (_, target):
        bench = Bench(database, tmp_path / "store", target)
        read_one(bench)
        bench.sender(send).deliver_to(1)
    with storage_scp(classes("seg+sc"), results=wanted) as (scp, target):
        with database.writing() as session:
            enter_targets(session, [target])
            requeue_study(session, 1, bench.clock.now)
        bench.sender(send).deliver_to(1)
        assert kinds_received(bench, scp) == [SEG]
    assert bench.study().state is StudyState.DONE


def test_a_profile_that_names_more_gets_a_stand_in_for_films_read_before(
    database: Database, tmp_path: Path
) -> None:
    bench = Bench(database, tmp_path / "store")
    read_one(bench)
    assert {r.kind for r in bench.results} == {SEG, SC}
    report_reader = Target(ae_title="RIS", host="h", port=1, results=profile(["sr"]))
    with database.writing() as session:
        enter_targets(session, [report_reader])
    bench.receive(chest_film("1.2.3", 2))
    bench.reader().read_study(1)
    kinds = {result.result_key: result.kind for result in bench.results}
    assert [(kinds[d.result_key], d.instead_of) for d in bench.deliveries] == [(SC, SR), (SR, None)]


def test_results_of_a_newer_model_name_those_they_replace(
    any_database: Database, tmp_path: Path
) -> None:
    everything = frozenset(ResultKind)
    bench = Bench(any_database, tmp_path / "store", PACS.model_copy(update={"results": everything}))
    read_one(bench)
    bench.receive(chest_film("1.2.3", 2))
    bench.reader(NEWER_MODEL).read_study(1)

    film_uid = "1.2.3.1.1"
    for kind in ResultKind:
        older, newer, fresh = [r for r in bench.results if r.kind is kind]
        assert older.superseded_by_key == newer.result_key
        objects = [bench.store.read(r.relative_path) for r in (older, newer, fresh)]
        assert len({o.SOPInstanceUID for o in objects}) == 3
        assert newer.sop_instance_uid == result_uid(film_uid, NEWER_MODEL.version, kind)
        says_so = ["replaces 0.1.0" in o.SeriesDescription for o in objects]
        # A series has one description, also with a film that the older model never read.
        assert says_so == [False, True, True]
        assert objects[1].SeriesInstanceUID == objects[2].SeriesInstanceUID
    older, newer, fresh = [bench.store.read(r.relative_path) for r in bench.results if r.kind is SR]
    [study] = newer.PredecessorDocumentsSequence
    [document] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert document.ReferencedSOPInstanceUID == older.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in fresh


def test_no_predecessor_is_named_that_was_never_made(database: Database, tmp_path: Path) -> None:
    bench = Bench(database, tmp_path / "store", PACS)
    read_one(bench)
    with database.writing() as session:
        enter_targets(session, [PACS.model_copy(update={"results": profile(["seg", "sr"])})])
    bench.receive(chest_film("1.2.3", 2))
    bench.reader(NEWER_MODEL).read_study(1)
    reports = [bench.store.read(r.relative_path) for r in bench.results if r.kind is SR]
    assert len(reports) == 2
    assert all("replaces" not in report.SeriesDescription for report in reports)
    assert all("PredecessorDocumentsSequence" not in report for report in reports)
    segmentation, newer = [
        bench.store.read(r.relative_path) for r in bench.results if r.kind is SEG
    ][:2]
    assert f"replaces {MODEL.version}" in newer.SeriesDescription
    assert segmentation.SOPInstanceUID != newer.SOPInstanceUID
