"""Storage commitment of a running node, as provider and as user, over real sockets."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicom_io.commitment_service import request_commitment
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.remote import RemoteAE
from dicom_io.storage_commitment import (
    NO_SUCH_INSTANCE,
    CommitmentRequest,
    CommitmentResult,
    InstanceReference,
    result_from,
)
from tests.orthanc import running_orthanc
from tests.worker.committing_scp import CommittingScp
from tests.worker.node_processes import processes_of
from tests.worker.nodes import RunningNode, running_node, waited_for
from worker.demo_pacs import free_port


def film(seed: int) -> Dataset:
    return phantom_dataset(draw_phantom(seed, 256, 256))


@dataclass
class ReportedTo:
    """A modality that takes reports of storage commitment."""

    port: int
    results: list[CommitmentResult] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[None]:
        entity = AE("MODALITY")
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        yield
        server.shutdown()

    def _take(self, event: evt.Event) -> tuple[int, None]:
        self.results.append(result_from(event.event_information))
        return 0x0000, None


def test_a_modality_that_was_away_is_told_after_a_restart_what_is_safe(tmp_path: Path) -> None:
    modality = ReportedTo(free_port())
    peers = f"MODALITY@127.0.0.1 send port={modality.port}, STRANGER@10.0.0.1"
    chest = film(1)
    kept = InstanceReference(chest.SOPClassUID, chest.SOPInstanceUID)
    lost = InstanceReference(chest.SOPClassUID, "1.2.3.4")
    request = CommitmentRequest(generate_uid(prefix=None), (kept, lost))
    with running_node(tmp_path / "node", None, allowed_peers=peers) as node:
        assert [outcome.status for outcome in node.send(chest)] == [0x0000]
        assert request_commitment(request, node.address, wait_seconds=0) is None
        log = tmp_path / "node" / "node.log"
        waited_for(lambda: b"commitment is not reported" in log.read_bytes(), "the first attempt")
        for process in processes_of(tmp_path / "node" / "home", "listen"):
            os.kill(process, signal.SIGKILL)
        with modality.listening():
            waited_for(lambda: modality.results, "the report after the restart")
    expected = CommitmentResult(request.transaction_uid, (kept,), ((lost, NO_SUCH_INSTANCE),))
    assert modality.results == [expected]


def test_results_are_done_when_the_target_has_committed_in_an_association_of_its_own(
    tmp_path: Path,
) -> None:
    scp = CommittingScp()
    port = free_port()
    scp.reports_to = RemoteAE("MULTIMIX", "127.0.0.1", port, calling_ae_title="PACS")
    chest = film(2)
    with scp.running() as target:
        settings = {
            "allowed_peers": "MODALITY@127.0.0.1, PACS@127.0.0.1 receive",
            "targets": str(target),
            "listener_port": str(port),
        }
        with running_node(tmp_path / "node", None, **settings) as node:
            node.send(chest)
            study = node.wait_for(chest.StudyInstanceUID, "done", "failed")
    assert study["state"] == "done", study
    assert reasons(study) == {"delivered, and committed by the target"}
    assert len(scp.asked) >= 1


@pytest.mark.interop
def test_orthanc_commits_to_our_results(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "orthanc").mkdir()
    modalities = {"node": ["MULTIMIX", "127.0.0.1", port]}
    with running_orthanc(tmp_path / "orthanc", DicomModalities=modalities) as orthanc:
        settings = {
            "allowed_peers": "MODALITY@127.0.0.1, ORTHANC@127.0.0.1 receive",
            "targets": f"ORTHANC@127.0.0.1:{orthanc.dicom_port} seg+sc commit",
            "listener_port": str(port),
        }
        with running_node(tmp_path / "node", None, **settings) as node:
            chest = film(3)
            node.send(chest)
            study = node.wait_for(chest.StudyInstanceUID, "done", "failed")
            assert study["state"] == "done", study
            assert reasons(study) == {"delivered, and committed by the target"}
            assert_commits_to(node, chest)


def assert_commits_to(node: RunningNode, dataset: Dataset) -> None:
    """The node commits to a film in the requestor's association."""
    film_reference = InstanceReference(dataset.SOPClassUID, dataset.SOPInstanceUID)
    request = CommitmentRequest(generate_uid(prefix=None), (film_reference,))
    result = request_commitment(request, node.address)
    assert result == CommitmentResult(request.transaction_uid, (film_reference,))


def reasons(study: dict) -> set[str]:
    return {
        delivery["reason"]
        for instance in study["instances"]
        for result in instance["results"]
        for delivery in result["deliveries"]
    }
