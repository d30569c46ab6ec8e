"""The whole path between peers of other makers: dcmtk sends, Orthanc receives and is asked."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from dicom_io.phantom import draw_phantom, phantom_dataset
from tests.orthanc import OrthancServer, running_orthanc
from tests.programs import output_of, require_program
from tests.worker.nodes import running_node, waited_for
from worker.demo_pacs import free_port

pytestmark = pytest.mark.interop

SOP_CLASS, SOP_INSTANCE, ROWS = "00080016", "00080018", "00280010"


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[OrthancServer]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with running_orthanc(folder) as running:
        yield running


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis server of the test's own."""
    port = free_port()
    process = subprocess.Popen(
        [
            require_program("redis-server"),
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)),
            *("--appendonly", "yes", "--requirepass", "secret"),
        ],
        stdout=subprocess.DEVNULL,
    )
    yield f"redis://:secret@127.0.0.1:{port}/0"
    process.terminate()
    process.wait(timeout=20)


def send_by_dcmtk(path: Path, port: int) -> None:
    done = subprocess.run(
        [require_program("storescu"), "-aec", "MULTIMIX", "127.0.0.1", str(port), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def send_and_read_back(folder: Path, orthanc: OrthancServer, **settings: str) -> None:
    """One film through a node into Orthanc, read back over DICOMweb and judged by dciodvfy."""
    dataset = phantom_dataset(draw_phantom(21, 384, 320))
    path = folder / "film.dcm"
    dataset.save_as(path, enforce_file_format=True)
    targets = f"{orthanc.ae_title}@127.0.0.1:{orthanc.dicom_port}"
    with running_node(folder / "node", None, targets=targets, **settings) as node:
        send_by_dcmtk(path, node.address.port)
        study = node.wait_for(dataset.StudyInstanceUID, "done", "failed", "rejected")
        assert study["state"] == "done", study
    found = waited_for(lambda: orthanc.metadata(dataset.StudyInstanceUID), "the results in Orthanc")
    by_class = {instance[SOP_CLASS]["Value"][0]: instance for instance in found}
    assert {SegmentationStorage, SecondaryCaptureImageStorage} <= set(by_class)
    assert by_class[SegmentationStorage][ROWS]["Value"] == [dataset.Rows]
    stored = sorted((folder / "node" / "home" / "store").rglob("*.dcm"))
    # The film, what was sent, and the presentation state that would stand in for the segmentation.
    assert len(stored) == 4
    for result in stored:
        assert "Error" not in output_of("dciodvfy", result)


def test_dcmtk_to_node_to_orthanc_and_back_over_dicomweb(
    tmp_path: Path, orthanc: OrthancServer
) -> None:
    send_and_read_back(tmp_path, orthanc)


def test_postgresql_and_redis_instead_of_the_embedded_parts(
    tmp_path: Path, orthanc: OrthancServer, postgres_url: str, redis_url: str
) -> None:
    send_and_read_back(tmp_path, orthanc, database_url=postgres_url, broker_url=redis_url)
    assert not list((tmp_path / "node" / "home").glob("*.sqlite*"))
    assert not (tmp_path / "node" / "home" / "broker").exists()
