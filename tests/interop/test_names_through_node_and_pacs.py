"""Patients' names of many scripts, from a film through node and PACS, as the PACS shows them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.result_profile import profile_text
from dicom_io.sender import Disposition, send
from dicom_io.uids import STORAGE_CLASSES, ResultKind
from tests.orthanc import OrthancServer, running_orthanc
from tests.worker.nodes import running_node, waited_for

pytestmark = pytest.mark.interop

NAMES = {
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
    "latin": ("ISO_IR 100", "Müller^Jürgen"),
}
SOP_CLASS, NAME, SERIES_DESCRIPTION = "00080016", "00100010", "0008103E"


def film_of(number: int, character_set: str | list[str], name: str) -> Dataset:
    dataset = phantom_dataset(draw_phantom(20 + number, 384, 320))
    dataset.SpecificCharacterSet = character_set
    dataset.PatientName = name
    return dataset


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[OrthancServer]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with running_orthanc(folder) as running:
        yield running


def test_names_are_readable_in_the_pacs_on_every_kind_of_result(
    tmp_path: Path, orthanc: OrthancServer
) -> None:
    films = {
        script: film_of(number, *NAMES[script]) for number, script in enumerate(NAMES, start=1)
    }
    target = f"{orthanc.ae_title}@127.0.0.1:{orthanc.dicom_port} {profile_text(ResultKind)}"
    with running_node(tmp_path / "node", None, targets=target) as node:
        outcomes = send(films.values(), node.address)
        assert {outcome.disposition for outcome in outcomes} == {Disposition.DELIVERED}
        for script, film in films.items():
            study = node.wait_for(film.StudyInstanceUID, "done", "failed", "rejected")
            assert study["state"] == "done", study
            assert study["deliveries"] == {"delivered": len(ResultKind)}
            found = waited_for(
                lambda uid=film.StudyInstanceUID: orthanc.metadata(uid), "results in Orthanc"
            )
            assert sorted(instance[SOP_CLASS]["Value"][0] for instance in found) == sorted(
                STORAGE_CLASSES.values()
            )
            groups = NAMES[script][1].split("=")
            expected = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), groups, strict=False))
            for instance in found:
                assert instance[NAME]["Value"][0] == expected
                assert "MultiMix" in instance[SERIES_DESCRIPTION]["Value"][0]
