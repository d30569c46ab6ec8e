"""A real Orthanc with its DICOMweb plugin, in a folder of its own on free ports."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.programs import require_program

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 60


@dataclass(frozen=True)
class OrthancServer:
    """Where a running Orthanc listens."""

    url: str
    dicom_port: int
    ae_title: str = "ORTHANC"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.url}/dicom-web"

    def upload(self, content: bytes) -> None:
        """Store one DICOM file; fails the test if Orthanc does not take it."""
        answer = requests.post(f"{self.url}/instances", data=content, timeout=30)
        assert answer.ok, answer.text

    def metadata(self, study_uid: str) -> list[dict[str, Any]]:
        """WADO-RS metadata of all instances of a study; empty while there are none."""
        answer = requests.get(
            f"{self.dicomweb_url}/studies/{study_uid}/metadata",
            headers={"Accept": "application/dicom+json"},
            timeout=30,
        )
        if answer.status_code == requests.codes.not_found:
            return []
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found


@contextmanager
def running_orthanc(folder: Path, **settings: object) -> Iterator[OrthancServer]:
    """Start Orthanc and stop it at the end.

    Args:
        folder: where it keeps its storage, settings and log.
        settings: further entries of its configuration, e.g. ``DicomModalities``.
    """
    program = require_program("Orthanc")
    if not DICOMWEB_PLUGIN.exists():
        require_program(DICOMWEB_PLUGIN.name)
    http_port, dicom_port = _free_ports(2)
    server = OrthancServer(f"http://127.0.0.1:{http_port}", dicom_port)
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": server.ae_title,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "SaveJobs": False,
        "Plugins": [str(DICOMWEB_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder
        )
    try:
        _wait_until_it_answers(server, process, folder / "orthanc.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(
    server: OrthancServer, process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = requests.get(f"{server.url}/system", timeout=2)
            if answer.ok or answer.status_code == requests.codes.unauthorized:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    pytest.fail(f"Orthanc did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
