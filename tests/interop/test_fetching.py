"""An archive worked through in retrospect: Orthanc has films, the node fetches and answers."""

from io import BytesIO
from pathlib import Path

import pytest
import requests
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from dicom_io.phantom import draw_phantom, phantom_dataset
from tests.orthanc import OrthancServer, running_orthanc
from tests.worker.nodes import RunningNode, running_node, waited_for

pytestmark = pytest.mark.interop

SOP_CLASS = "00080016"


def upload(orthanc: OrthancServer, film: Dataset) -> str:
    buffer = BytesIO()
    film.save_as(buffer, enforce_file_format=True)
    orthanc.upload(buffer.getvalue())
    return str(film.StudyInstanceUID)


def introduce(node: RunningNode, orthanc: OrthancServer) -> None:
    """Tell Orthanc where the node listens, which C-MOVE needs."""
    answer = requests.put(
        f"{orthanc.url}/modalities/node",
        json={"AET": "MULTIMIX", "Host": "127.0.0.1", "Port": node.address.port},
        timeout=10,
    )
    assert answer.ok, answer.text


def has_results(orthanc: OrthancServer, study_uid: str) -> bool:
    classes = {instance[SOP_CLASS]["Value"][0] for instance in orthanc.metadata(study_uid)}
    return {SegmentationStorage, SecondaryCaptureImageStorage} <= classes


def test_studies_are_fetched_by_every_way_and_answered_by_stow_rs(tmp_path: Path) -> None:
    with running_orthanc(
        _folder(tmp_path / "orthanc"), DicomAlwaysAllowGet=True, DicomAlwaysAllowMove=True
    ) as orthanc:
        by_get, by_move, by_web = (
            upload(orthanc, phantom_dataset(draw_phantom(seed, 256, 256))) for seed in (31, 32, 33)
        )
        archive = f"{orthanc.ae_title}@127.0.0.1:{orthanc.dicom_port}"
        targets = f"WEB={orthanc.dicomweb_url}"
        with running_node(tmp_path / "node", None, targets=targets) as node:
            introduce(node, orthanc)
            assert "answers" in node.command("peers", "--echo")
            node.command("fetch", by_get, "--from", archive)
            node.command("fetch", by_move, "--from", archive, "--by", "move")
            uid_list = tmp_path / "studies.txt"
            uid_list.write_text(f"# one film\n{by_web}\n{by_get}\n")
            printed = node.command("fetch", "--file", str(uid_list), "--from", "WEB")
            assert "known already" in printed
            assert "2 of 2 studies are here" in printed
            for study_uid in (by_get, by_move, by_web):
                study = node.wait_for(study_uid, "done", "failed", "rejected")
                assert study["state"] == "done", study
                assert waited_for(lambda: has_results(orthanc, study_uid), "results in Orthanc")  # noqa: B023


def test_what_cannot_be_fetched_is_said(tmp_path: Path) -> None:
    with (
        running_orthanc(_folder(tmp_path / "orthanc"), DicomAlwaysAllowFind=True) as orthanc,
        running_node(tmp_path / "node", None) as node,
    ):
        archive = f"{orthanc.ae_title}@127.0.0.1:{orthanc.dicom_port}"
        for peer in (archive, orthanc.dicomweb_url):
            refused = node.refused_command("fetch", "2.25.999", "--from", peer)
            assert "the peer has no radiograph of it" in refused
        assert "is no target of the settings" in node.refused_command(
            "fetch", "2.25.999", "--from", "NOBODY"
        )
        assert "cannot be reached" in node.refused_command(
            "fetch", "2.25.999", "--from", "NOBODY@127.0.0.1:9"
        )
        assert "cannot be asked by wado" in node.refused_command(
            "fetch", "2.25.999", "--from", archive, "--by", "wado"
        )


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
