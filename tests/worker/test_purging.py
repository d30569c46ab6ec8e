"""A study is erased wherever it is, whoever's row it hides behind, and the log says by whom."""

import struct
import zlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicom_io.errors import IllegalTransition, MultiMixError
from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.readings import bring, chest_film
from tests.worker.storage_scp import storage_scp
from worker.database import Database
from worker.purging import names_study, purge_study
from worker.studies import StudyState
from worker.study_steps import claim
from worker.tables import Event, InstanceConflict, Study

COMPONENT = st.integers(0, 9999).map(str)
UIDS = st.lists(COMPONENT, min_size=2, max_size=8).map(lambda parts: "1." + ".".join(parts))


def purge(bench: Bench, study_uid: str = "1.2.3") -> int:
    return purge_study(bench.database, bench.store, study_uid, "miller", bench.clock)


def test_everything_of_a_study_is_erased_and_nothing_of_another(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"), chest_film("1.2.3", 2))
    bench.receive(chest_film("1.2.4"))
    bench.reader().read_study(1)
    others = {row.relative_path for row in bench.instances if row.study_key == 2}
    assert purge(bench) == 2 + 4
    assert set(bench.store.relative_paths()) == others
    assert [study.state.value for study in bench.all(Study)] == ["removed", "ready"]
    (erased,) = [event for event in bench.all(Event) if event.kind == "study removed"]
    assert erased.detail["operator"] == "miller"
    assert erased.detail["instances"] == 2


def test_copies_in_odd_places_are_erased_too(any_database: Database, tmp_path: Path) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"))
    one = association()
    bench.intake.association_accepted(one)
    # Under the UID of another study's instance: kept as a conflict there.
    bench.receive(chest_film("1.2.4"))
    same_uid = chest_film("1.2.3", 9)
    same_uid.SOPInstanceUID = same_uid.file_meta.MediaStorageSOPInstanceUID = "1.2.4.1.1"
    bring(same_uid, bench.store, bench.intake, one)
    assert len(bench.all(InstanceConflict)) == 1
    # In quarantine, one of this study and one of another.
    for study_uid in ("1.2.3", "1.2.4"):
        stored = bench.store.keep_dataset(chest_film(study_uid, 7))
        content = bench.store.read_encoded_dataset(stored.relative_path)
        bench.store.quarantine(content, "not the instance of the command")
        bench.store.remove(stored.relative_path)
    purge(bench)

    assert bench.all(InstanceConflict) == []
    left = [
        bench.store.path_of(path).read_bytes()
        for path in (*bench.store.relative_paths(), *bench.store.quarantined_paths())
    ]
    assert len(left) == 2
    assert not any(names_study(content, "1.2.3") for content in left)
    assert len(list((bench.store.root / "quarantine").iterdir())) == 2


def test_a_study_is_erased_twice_without_harm(any_database: Database, tmp_path: Path) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"))
    assert (purge(bench), purge(bench)) == (1, 0)


def test_what_waits_for_a_target_that_is_away_can_be_erased(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (_, target):
        pass
    bench = Bench(any_database, tmp_path, target)
    bench.receive(chest_film("1.2.3"))
    bench.reader().read_study(1)
    assert bench.study().state is StudyState.DELIVERING
    purge(bench)
    assert bench.deliveries == []
    assert list(bench.store.relative_paths()) == []


def test_what_is_being_read_or_sent_is_not_torn_away(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (_, target):
        bench = Bench(any_database, tmp_path, target)
        bench.receive(chest_film("1.2.3"))
        with any_database.writing() as session:
            assert claim(session, 1, bench.clock(), timedelta(seconds=15))
        with pytest.raises(IllegalTransition, match="being read"):
            purge(bench)
        bench.clock.forward(20)
        bench.sweeper.sweep()
        bench.clock.forward(3600)
        (peer_key,) = bench.reader().read_study(1)

        def purge_while_sending(*_: object) -> list:
            with pytest.raises(IllegalTransition, match="being sent"):
                purge(bench)
            raise MultiMixError("the association broke off")

        bench.sender(purge_while_sending).deliver_to(peer_key)
    purge(bench)
    assert list(bench.store.relative_paths()) == []


def test_a_study_that_grows_while_it_is_being_sent_is_not_torn_away(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (_, target):
        bench = Bench(any_database, tmp_path, target)
        bench.receive(chest_film("1.2.3"))
        (peer_key,) = bench.reader().read_study(1)

        def purge_what_grew(*_: object) -> list:
            bench.receive(chest_film("1.2.3", 2))
            assert bench.study().state is StudyState.READY
            with pytest.raises(IllegalTransition, match="being sent"):
                purge(bench)
            raise MultiMixError("the association broke off")

        bench.sender(purge_what_grew).deliver_to(peer_key)
    purge(bench)
    assert list(bench.store.relative_paths()) == []


def test_an_unknown_study_is_said_to_be_unknown(database: Database, tmp_path: Path) -> None:
    with pytest.raises(MultiMixError, match=r"no study 9\.9 is known"):
        purge(Bench(database, tmp_path), "9.9")


@given(study_uid=UIDS, little=st.booleans(), implicit=st.booleans(), deflated=st.booleans())
def test_the_study_of_a_dataset_is_found_in_its_bytes(
    study_uid: str, little: bool, implicit: bool, deflated: bool
) -> None:
    dataset = Dataset()
    dataset.SOPInstanceUID, dataset.Modality = "1.2.9", "DX"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, study_uid + ".1"
    buffer = DicomBytesIO()
    buffer.is_little_endian = little or implicit
    buffer.is_implicit_VR = implicit
    write_dataset(buffer, dataset)
    content = buffer.getvalue()
    if deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = packer.compress(content) + packer.flush()
    assert names_study(content, study_uid)
    assert not names_study(content, study_uid + "1")
    assert not names_study(content, study_uid[:-1])


def test_a_damaged_object_still_names_its_study() -> None:
    uid = b"1.2.3"
    element = b"\x20\x00\x0d\x00UI" + struct.pack("<H", 6) + uid
    assert names_study(b"\xff" * 99 + element + b"\0", "1.2.3")
    assert not names_study(b"\xff" * 99 + element + b"4", "1.2.3")
