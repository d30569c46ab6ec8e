"""A list that is fetched again brings what is missing, nothing twice, and tells what is away."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_io.storage import InstanceStore, StoredInstance
from tests.dicom_io.web_services import Answer, Request, web_server
from tests.worker.archive_scp import archive_scp
from tests.worker.bench import PACS, Bench
from tests.worker.readings import chest_film
from worker.database import Database
from worker.fetching import Fetched, Fetcher, source_named, way_to
from worker.purging import purge_study
from worker.settings import Settings


@pytest.fixture
def bench(database: Database, settings: Settings) -> Bench:
    return Bench(database, settings.store_directory, PACS)


def fetch(
    settings: Settings, database: Database, peer: str, study_uid: str, *, again: bool = False
) -> Fetched:
    source = source_named(settings, peer)
    return Fetcher(settings, database, source, way_to(source, None)).fetch(study_uid, again=again)


def test_half_a_study_is_fetched_again_and_a_whole_one_is_not(
    database: Database, settings: Settings, bench: Bench
) -> None:
    with archive_scp(chest_film("1.2.3", 1), chest_film("1.2.3", 2)) as (archive, peer):
        archive.gives_at_most = 1
        first = fetch(settings, database, peer, "1.2.3")
        assert (first.taken, first.complete) == (1, False)
        second = fetch(settings, database, peer, "1.2.3")
        assert (second.complete, len(bench.instances)) == (False, 1)
        archive.gives_at_most = None
        third = fetch(settings, database, peer, "1.2.3")
        assert (third.complete, len(bench.instances)) == (True, 2)
        assert len(archive.studies_asked_for) == 3
        fourth = fetch(settings, database, peer, "1.2.3")
        assert fourth.complete
        assert "known already" in fourth.note
        assert len(archive.studies_asked_for) == 3


def test_a_study_that_grew_at_the_archive_is_fetched_again(
    database: Database, settings: Settings, bench: Bench
) -> None:
    with archive_scp(chest_film("1.2.3", 1)) as (archive, peer):
        fetch(settings, database, peer, "1.2.3")
        archive.films.append(chest_film("1.2.3", 2))
        assert fetch(settings, database, peer, "1.2.3").complete
        assert len(bench.instances) == 2


def test_results_of_ours_that_the_archive_holds_by_now_are_not_missed(
    database: Database, settings: Settings, bench: Bench
) -> None:
    with archive_scp(chest_film("1.2.3", 1)) as (archive, peer):
        fetch(settings, database, peer, "1.2.3")
        # By the node's own clock, an hour after any sender's.
        bench.clock.now = bench.study().ready_at
        bench.clock.forward(3600)
        bench.sweeper.sweep()
        bench.reader().read_study(1)
        results = [bench.store.read(result.relative_path) for result in bench.results]
        archive.films += [one for one in results if one.SOPClassUID == SecondaryCaptureImageStorage]
        assert len(archive.films) == 2
        assert "known already" in fetch(settings, database, peer, "1.2.3").note


def test_a_study_that_was_deleted_here_is_said_to_be_and_comes_only_if_asked_for_again(
    database: Database, settings: Settings, bench: Bench
) -> None:
    with archive_scp(chest_film("1.2.3", 1)) as (archive, peer):
        fetch(settings, database, peer, "1.2.3")
        purge_study(database, bench.store, "1.2.3", "miller", bench.clock)
        deleted = fetch(settings, database, peer, "1.2.3")
        assert (deleted.complete, deleted.taken) == (False, 0)
        assert "deleted here" in deleted.note
        assert "--again" in deleted.note
        assert len(archive.studies_asked_for) == 1
        assert fetch(settings, database, peer, "1.2.3", again=True).complete
        assert len(bench.instances) == 1


def test_an_archive_that_takes_no_queries_is_asked_for_all_of_it_again(
    database: Database, settings: Settings, bench: Bench
) -> None:
    films = (chest_film("1.2.3", 1), chest_film("1.2.3", 2))
    with archive_scp(*films, takes_queries=False) as (archive, peer):
        archive.gives_at_most = 1
        assert not fetch(settings, database, peer, "1.2.3").complete
        archive.gives_at_most = None
        assert fetch(settings, database, peer, "1.2.3").complete
        assert len(bench.instances) == 2


LISTED = {"00080016": "SOPClassUID", "0020000E": "SeriesInstanceUID", "00080018": "SOPInstanceUID"}


def listing(*films: Dataset) -> bytes:
    """What QIDO-RS says of films."""

    def element(film: Dataset, keyword: str) -> dict[str, object]:
        return {"vr": "UI", "Value": [str(film[keyword].value)]}

    return json.dumps(
        [{tag: element(film, keyword) for tag, keyword in LISTED.items()} for film in films]
    ).encode()


def test_a_web_service_is_asked_only_for_studies_that_are_not_whole(
    database: Database, settings: Settings, bench: Bench, tmp_path: Path
) -> None:
    films = [chest_film("1.2.3", 1), chest_film("1.2.3", 2)]
    missing = {"1.2.3.1.2"}

    def answer(request: Request) -> Answer:
        if request.path.endswith("/instances"):
            return Answer(200, listing(*films))
        uid = request.path.rpartition("/")[2]
        if uid in missing:
            return Answer(204)
        (film,) = (film for film in films if film.SOPInstanceUID == uid)
        film.save_as(tmp_path / "film", enforce_file_format=True)
        body = b"--x\r\n\r\n" + (tmp_path / "film").read_bytes() + b"\r\n--x--"
        return Answer(200, body, 'multipart/related; boundary="x"')

    with web_server(answer) as service:
        assert not fetch(settings, database, service.url, "1.2.3").complete
        missing.clear()
        assert fetch(settings, database, service.url, "1.2.3").complete
        assert len(bench.instances) == 2
        asked = len(service.requests)
        assert "known already" in fetch(settings, database, service.url, "1.2.3").note
        assert len(service.requests) == asked + 1, "only for the list"


def test_what_is_deleted_on_its_way_to_its_row_counts_as_not_fetched(
    database: Database, settings: Settings, bench: Bench
) -> None:
    class OvertakenStore(InstanceStore):
        def keep(self, *args: Any, **uids: str) -> StoredInstance:
            kept = super().keep(*args, **uids)
            purge_study(database, bench.store, "1.2.3", "miller", bench.clock)
            return kept

    with archive_scp(chest_film("1.2.3", 1)) as (_, peer):
        source = source_named(settings, peer)
        fetcher = Fetcher(settings, database, source, way_to(source, None))
        bench.receive(chest_film("1.2.3", 2))
        fetcher._store = OvertakenStore(settings.store_directory)
        outcome = fetcher.fetch("1.2.3")
        assert (outcome.failed, outcome.complete) == (1, False)
        assert bench.instances == []
        assert fetch(settings, database, peer, "1.2.3", again=True).complete
    assert [bench.store.path_of(row.relative_path).is_file() for row in bench.instances] == [True]
