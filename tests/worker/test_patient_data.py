"""Whatever becomes of a film, no patient's name leaves it but into the storage and its results."""

import json
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from redis import Redis
from sqlalchemy import MetaData

from dicom_io.errors import AssociationFailed
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.remote import RemoteAE
from dicom_io.sender import send
from tests.dicom_io.peers import association_with, store_bytes
from tests.worker.nodes import RunningNode, running_node, waited_for
from tests.worker.storage_scp import StorageScp, storage_scp
from worker.database import Database

CANARIES = {
    "PatientName": "Canary^Bird",
    "PatientID": "CANARY-ID",
    "AccessionNumber": "CANARY-ACC",
    "ReferringPhysicianName": "Canary^Doctor",
    "InstitutionName": "Canary Hospital",
    "StudyDescription": "Canary study",
    "PatientComments": "the canary sings",
    "OperatorsName": "Canary^Operator",
    "DeviceSerialNumber": "CANARY-SERIAL",
}


@pytest.fixture
def scp_and_address() -> Iterator[tuple[StorageScp, str]]:
    with storage_scp() as (scp, target):
        yield scp, f"PACS@{target.host}:{target.port}"


def film(seed: int) -> Dataset:
    """A phantom with a canary wherever a patient or a hospital can be named."""
    dataset = phantom_dataset(draw_phantom(seed, 256, 256))
    for keyword, canary in CANARIES.items():
        setattr(dataset, keyword, canary)
    return dataset


def troublesome_films() -> list[Dataset]:
    """Films that end in every kind of refusal and failure, each with canaries."""
    hip, undecodable, colour, tiny, frames = (film(seed) for seed in range(2, 7))
    hip.BodyPartExamined, hip.AnatomicRegionSequence = "HIP", []
    undecodable.PixelData = undecodable.PixelData[:1000]
    colour.SamplesPerPixel, colour.PhotometricInterpretation = 3, "RGB"
    tiny.Rows = tiny.Columns = 8
    tiny.PixelData = tiny.PixelData[:128]
    frames.NumberOfFrames = 2
    canary_in_a_number = film(7)
    with_values_as_they_are(canary_in_a_number, "WindowCenter", "Canary")
    with_values_as_they_are(canary_in_a_number, "PixelSpacing", ["Canary", "Bird"])
    canary_as_a_date = film(8)
    with_values_as_they_are(canary_as_a_date, "StudyDate", "CanaryDay")
    canary_as_a_body_part = film(9)
    canary_as_a_body_part.BodyPartExamined = "CANARY PART"
    return [
        *(hip, undecodable, colour, tiny, frames),
        *(canary_in_a_number, canary_as_a_date, canary_as_a_body_part),
    ]


def with_values_as_they_are(dataset: Dataset, keyword: str, value: object) -> None:
    """Set a value that pydicom would refuse, as a careless maker's device writes it."""
    if keyword in dataset:
        del dataset[keyword]
    dataset.add_new(keyword, "LO", value)


def send_what_must_be_refused(node: RunningNode) -> None:
    """Strangers, other bytes under a known UID, a dataset that is not its command's, no dataset."""
    address = node.address
    stranger = RemoteAE("MULTIMIX", address.host, address.port, "CT9")
    with suppress(AssociationFailed):
        send([film(20)], stranger)
    twice = film(21)
    other = deepcopy(twice)
    other.PatientName = "Canary^Other"
    nameless = film(22)
    del nameless.StudyInstanceUID
    for dataset in (twice, other, nameless):
        node.send(dataset)
    with association_with(FakeListener(address.port)) as association:
        store_bytes(association, b"Canary^Bird is no dataset" * 100)
        store_bytes(association, b"\x10\x00\x10\x00PN\xff\xffCanary^Bird")
        store_bytes(association, None)


class FakeListener:
    """The port of the node, for helpers that ask a listener for its port."""

    def __init__(self, port: int) -> None:
        self.port = port


def test_no_patient_is_named_whatever_becomes_of_the_film(
    tmp_path: Path, scp_and_address: tuple[StorageScp, str]
) -> None:
    scp, target = scp_and_address
    good = film(1)
    refused: set[str] = set()

    def answer(sop_instance_uid: str) -> int:
        """The first object is refused for good, the second time out of resources, then taken."""
        refused.add(sop_instance_uid)
        return {1: 0xC000, 2: 0xA700}.get(len(refused), 0x0000)

    scp.answer = answer
    with running_node(
        tmp_path / "node",
        None,
        targets=f"{target}, AWAY=AWAY@127.0.0.1:1",
        allowed_peers="MODALITY@127.0.0.1, PACS@127.0.0.1 receive, AWAY@127.0.0.1 receive",
        log_level="debug",
        give_up_after_hours="0.002",
    ) as node:
        troublesome = troublesome_films()
        for dataset in (good, *troublesome):
            dataset.SOPInstanceUID = dataset.SOPInstanceUID or generate_uid()
            with suppress(ValueError):
                node.send(dataset)
        send_what_must_be_refused(node)

        def settled() -> bool:
            studies = node.status()
            return len(studies) > 5 and all(
                study["state"] in ("done", "failed", "rejected") for study in studies
            )

        waited_for(settled, "every study to end")
        printed = [node.command("status"), node.command("status", "--json")]
        printed += [node.command("settings"), node.command("peers")]
        printed.append(node.command("audit", good.StudyInstanceUID))
        url = (tmp_path / "node" / "home" / "broker" / "url").read_text().strip()
        with Redis.from_url(url) as broker:
            printed += [str(broker.dump(key)) for key in broker.keys("*")]
        states = {study["state"] for study in json.loads(printed[1])["studies"]}
        assert states >= {"failed", "rejected"}
        assert_no_canary_in(everything_but_storage(node.folder))
        printed.append(everything_in_the_database(node))
    stored = (tmp_path / "node" / "home" / "store").rglob("*.dcm")
    assert any(b"Canary^Bird" in path.read_bytes() for path in stored)  # it could have got out
    for text in printed:
        assert "canary" not in text.lower()
    assert_no_canary_in(everything_but_storage(tmp_path / "node"))


def everything_but_storage(folder: Path) -> list[Path]:
    """Logs, the broker's files, the database's own and whatever else the node wrote."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and "store" not in path.relative_to(folder).parts
    ]
    names = {path.name for path in found}
    assert "node.log" in names
    assert any("aof" in name for name in names), names
    return found


def assert_no_canary_in(paths: list[Path]) -> None:
    for path in paths:
        assert b"canary" not in path.read_bytes().lower(), path


def everything_in_the_database(node: RunningNode) -> str:
    """Every row of every table as text, the details of events among them."""
    database = Database(f"sqlite:///{node.environment['MULTIMIX_HOME']}/node.sqlite")
    try:
        with database.engine.connect() as connection:
            tables = MetaData()
            tables.reflect(connection)
            return "\n".join(
                str(tuple(row))
                for table in tables.sorted_tables
                for row in connection.execute(table.select())
            )
    finally:
        database.close()
