"""A study is erased wherever it is, whoever's row it hides behind, and the log says by whom."""

import os
import struct
import zlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_io.errors import IllegalTransition, MultiMixError, StorageError
from dicom_io.sender import RemoteAE, SendOutcome, send
from dicom_io.storage import InstanceStore, StoredInstance
from tests.worker.arrivals import association
from tests.worker.bench import Bench
from tests.worker.readings import bring, chest_film
from tests.worker.storage_scp import storage_scp
from worker.database import Database
from worker.purging import purge_study
from worker.stray_copies import names_study
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
        bench.store.quarantine.put(content, "not the instance of the command")
        bench.store.remove(stored.relative_path)
    purge(bench)

    assert bench.all(InstanceConflict) == []
    left = [
        bench.store.path_of(path).read_bytes()
        for path in (*bench.store.relative_paths(), *bench.store.quarantine.relative_paths())
    ]
    assert len(left) == 2
    assert not any(names_study(content, "1.2.3") for content in left)
    assert len(list((bench.store.root / "quarantine").iterdir())) == 2


def old(bench: Bench, relative_path: str) -> str:
    """A file as if it had been written an hour ago."""
    path = bench.store.path_of(relative_path)
    written = path.stat().st_mtime - 3600
    os.utime(path, (written, written))
    return relative_path


def deflated(film: Dataset) -> Dataset:
    film.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return film


def test_files_that_no_row_names_are_erased_and_those_of_others_stay(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"))
    bench.store.keep_dataset(chest_film("1.2.3", 2))
    bench.store.keep_dataset(deflated(chest_film("1.2.3", 3)))
    refers = chest_film("1.2.4")
    refers.RelatedSeriesSequence = [Dataset()]
    refers.RelatedSeriesSequence[0].StudyInstanceUID = "1.2.3"
    others = {old(bench, bench.store.keep_dataset(refers).relative_path)}
    others.add(bench.store.keep_dataset(chest_film("1.2.4", 2)).relative_path)
    assert purge(bench) == 3
    assert set(bench.store.relative_paths()) == others


def test_what_is_on_its_way_to_its_row_while_its_study_is_erased_is_asked_for_again(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"))
    one = association()
    bench.intake.association_accepted(one)

    class OvertakenStore(InstanceStore):
        def keep_dataset(self, dataset: Dataset) -> StoredInstance:
            kept = super().keep_dataset(dataset)
            self.content = self.read_encoded_dataset(kept.relative_path)
            purge(bench)
            return kept

        def read_encoded_dataset(self, relative_path: str) -> bytes:
            try:
                return super().read_encoded_dataset(relative_path)
            except StorageError:
                return self.content  # the listener has it in memory

    with pytest.raises(StorageError, match="send it again"):
        bring(chest_film("1.2.3", 2), OvertakenStore(bench.store.root), bench.intake, one)
    assert list(bench.store.relative_paths()) == []
    bring(chest_film("1.2.3", 2), bench.store, bench.intake, one)
    (instance,) = bench.instances
    bench.store.verify(instance.relative_path, instance.sha256)


def test_an_unreadable_file_that_no_row_names_is_erased_once_nobody_is_about_to_enter_it(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.3"))
    cut_off = bench.store.keep(
        b"\x20\x00\x0d\x00UI\x06\x001.2.3\0\x20\x00\x0e\x00UI\x09",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        sop_instance_uid="1.2.3.4",
    ).relative_path
    path = bench.store.path_of(cut_off)
    path.write_bytes(path.read_bytes().replace(b"DICM", b"DICX"))
    purge(bench)
    assert list(bench.store.relative_paths()) == [cut_off]
    old(bench, cut_off)
    purge(bench)
    assert list(bench.store.relative_paths()) == []


def test_a_study_of_which_only_a_conflict_is_here_is_erased(
    any_database: Database, tmp_path: Path
) -> None:
    bench = Bench(any_database, tmp_path)
    bench.receive(chest_film("1.2.4"))
    same_uid = chest_film("1.2.3", 9)
    same_uid.SOPInstanceUID = same_uid.file_meta.MediaStorageSOPInstanceUID = "1.2.4.1.1"
    bench.receive(same_uid)
    assert [study.study_uid for study in bench.all(Study)] == ["1.2.4"]
    assert purge(bench) == 1
    assert set(bench.store.relative_paths()) == {bench.instances[0].relative_path}
    erased = bench.all(Study)[1]
    assert (erased.study_uid, erased.state) == ("1.2.3", StudyState.REMOVED)


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


def test_a_study_that_grew_while_it_is_sent_is_not_torn_away(
    any_database: Database, tmp_path: Path
) -> None:
    with storage_scp() as (scp, target):
        bench = Bench(any_database, tmp_path, target)
        bench.receive(chest_film("1.2.3"))
        bench.reader().read_study(1)

        def grow_and_purge(paths: Sequence[Path], remote: RemoteAE) -> list[SendOutcome]:
            bench.receive(chest_film("1.2.3", 2))
            assert bench.study().state is StudyState.READY
            with pytest.raises(IllegalTransition, match="being sent"):
                purge(bench)
            return send(paths, remote)

        bench.sender(grow_and_purge).deliver_to(1)
        assert len(scp.received) == 2
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
